"""What the host knows of even rows saves looking up, and changes nothing: bitwise."""

from dataclasses import replace

import pytest
import torch

from gcattn import DRTCache
from gcattn.chunking import TableLayout
from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.models.call_plan import _row_plan, _token_plan


@pytest.fixture
def unknowing(monkeypatch):
    """Return what makes every layout forget that its rows are even."""
    build = TableLayout.build.__func__

    def forget():
        known = []

        def forgetful(cls, *args, **kwargs):
            layout = build(cls, *args, **kwargs)
            known.append(layout.is_even)
            return replace(layout, is_even=False, begins_chunks=False)

        monkeypatch.setattr(TableLayout, "build", classmethod(forgetful))
        clear_plans()
        return known

    def clear_plans():
        _row_plan.cache_clear()
        _token_plan.cache_clear()

    yield forget
    clear_plans()


@torch.inference_mode()
def read(model, ids, lengths):
    cache = DRTCache(model.config)
    logits = [model(part, cache=cache).logits for part in ids.split(lengths, dim=1)]
    held = {
        f"{name}.{key}": x
        for name, state in cache.states().items()
        for key, x in state.tensors().items()
    }
    return torch.cat(logits, dim=1), held


@pytest.mark.parametrize("serves", ["next_chunk", "from_landmark"])
@pytest.mark.parametrize("lengths", [(42, 42, 42), (45, 3, 80), (5, 60, 66)], ids=str)
def test_even_segments_leave_and_give_what_any_others_would(lengths, serves, unknowing):
    torch.manual_seed(0)
    config = drt_tiny(
        vocab_size=64,
        chunk_size=7,
        window_size=9,
        retrieval_serves=serves,
        embedding_convolution_size=3,
        key_convolution_size=2,
        landmark_pooling=True,
        landmark_overlap=2,
    )
    model = DRTForCausalLM(config).eval()
    ids = torch.randint(0, 60, (2, sum(lengths)))
    found, held = read(model, ids, lengths)
    known = unknowing()
    expected, expected_held = read(model, ids, lengths)
    assert any(known)  # there was something to forget
    assert torch.equal(found, expected) and held.keys() == expected_held.keys()
    for name, x in expected_held.items():
        assert x.dtype == held[name].dtype and torch.equal(held[name], x), name
