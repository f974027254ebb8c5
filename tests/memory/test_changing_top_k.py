"""A stream may retrieve more or fewer chunks from one call to the next (float64 on the CPU)."""

import pytest
import torch

from gcattn.memory.cache import DRTCache
from gcattn.nn.retriever import Retrieval
from gcattn.testing import random_config, random_model, random_tokens

CHANGES = [(2, 9), (9, 2)]


@pytest.fixture(scope="module", params=["next_chunk", "from_landmark"])
def model(request):
    sizes = {"chunk_size": 6, "num_lower_layers": 1, "num_encoder_layers": 0}
    groups = {"num_retrieval_groups": 2, "num_upper_layers": 2}
    return random_model(random_config(3, **sizes, **groups, retrieval_serves=request.param))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def read(model, ids, mask, pieces):
    """Read pieces of (tokens, K) into one cache; return the logits of all columns."""
    cache, logits, begin = DRTCache(model.config), [], 0
    for num_tokens, top_k in pieces:
        piece = ids[:, begin : begin + num_tokens]
        begin += num_tokens
        call = {"attention_mask": mask[:, :begin], "retrieval": Retrieval(top_k)}
        logits.append(model(piece, past_key_values=cache, **call).logits)
    return torch.cat(logits, dim=1)


@pytest.fixture(params=["even", "uneven"])
def rows(model, request):
    """Two rows of 24 tokens, which close their chunks in the same calls or in others."""
    ids = random_tokens(model.config, 2, 24)
    mask = torch.ones_like(ids)
    if request.param == "uneven":
        mask[1, :3] = 0
    return ids, mask


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_where_there_are_two_chunks_two_are_as_good_as_nine(model, rows, change):
    ids, mask = (x[:, :17] for x in rows)  # no landmark sees more than two chunks
    whole = read(model, ids, mask, [(17, 9)])
    before, after = change
    for pieces in ([(4, after)], [(1, after)] * 4):
        changed = read(model, ids, mask, [(13, before), *pieces])
        torch.testing.assert_close(changed[mask.bool()], whole[mask.bool()], rtol=0, atol=1e-10)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_after_a_change_token_by_token_equals_one_call(model, rows, change):
    ids, mask = rows
    before, after = change
    at_once = read(model, ids, mask, [(16, before), (8, after)])
    by_token = read(model, ids, mask, [(16, before), *[(1, after)] * 8])
    torch.testing.assert_close(by_token[mask.bool()], at_once[mask.bool()], rtol=0, atol=1e-10)
    unchanged = read(model, ids, mask, [(24, before)])
    assert not torch.allclose(at_once[:, -1], unchanged[:, -1])  # the new number is honoured
