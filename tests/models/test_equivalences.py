"""The properties that users rely on, over random configurations (float64 on the CPU)."""

import pytest
import torch

from gcattn.memory.cache import DRTCache
from gcattn.testing import random_config, random_model, random_tokens

# between them they hold every option in both values
QUICK = (0, 1)
SEEDS = [pytest.param(seed, marks=[] if seed in QUICK else pytest.mark.slow) for seed in range(12)]
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def segmented(model, ids, sizes, tier="device", **kwargs):
    """Run a stream in segments; returns the logits of all tokens and the cache."""
    cache, logits, at = DRTCache(model.config, tier), [], 0
    for size in sizes:
        here = {name: x[:, at : at + size] for name, x in kwargs.items()}
        output = model(ids[:, at : at + size], past_key_values=cache, **here)
        logits.append(output.logits)
        at += size
    return torch.cat(logits, dim=1), cache


def random_breaks(B, T, seed):
    return torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_segmented_forward_equals_full_forward(seed):
    model = random_model(random_config(seed))
    ids = random_tokens(model.config, 2, 97, seed)
    breaks = random_breaks(2, 97, seed)
    full = model(ids, use_cache=False, chunk_breaks=breaks).logits
    for sizes in ([1, 40, 3, 53], [64, 33], [5, 92]):
        logits, _ = segmented(model, ids, sizes, chunk_breaks=breaks)
        torch.testing.assert_close(logits, full, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_token_by_token_equals_full_forward(seed):
    # from the first token on, so first, full and last partial chunks are all decoded
    model = random_model(random_config(seed))
    ids = random_tokens(model.config, 2, 75, seed)
    full = model(ids, use_cache=False).logits
    logits, _ = segmented(model, ids, [1] * 75)
    torch.testing.assert_close(logits, full, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_row_equals_row_alone(seed):
    model = random_model(random_config(seed))
    ids = random_tokens(model.config, 3, 50, seed)
    lengths = (50, 23, 1)
    for side in ("left", "right"):
        mask = torch.zeros_like(ids)
        for row, length in enumerate(lengths):
            mask[row, 50 - length :] = 1 if side == "left" else 0
            mask[row, :length] = 1 if side == "right" else mask[row, :length]
        batched = model(ids, attention_mask=mask).logits
        for row, length in enumerate(lengths):
            real = mask[row].bool()
            alone = model(ids[row, real].unsqueeze(0)).logits
            torch.testing.assert_close(batched[row, real].unsqueeze(0), alone, **EXACT)
            assert alone.shape[1] == length


@pytest.mark.parametrize("seed", SEEDS)
def test_decoding_a_padded_batch_equals_decoding_each_row(seed):
    model = random_model(random_config(seed))
    ids = random_tokens(model.config, 2, 60, seed)
    mask = torch.ones_like(ids)
    mask[1, :17] = 0
    logits, _ = segmented(model, ids, [30] + [1] * 30, attention_mask=mask)
    alone, _ = segmented(model, ids[1:, 17:], [13] + [1] * 30)
    torch.testing.assert_close(logits[1:, 17:], alone, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_packed_documents_equal_separate_documents(seed):
    model = random_model(random_config(seed))
    lengths = (40, 1, 33, 15)  # the last chunk of a document is often partial
    ids = random_tokens(model.config, 2, sum(lengths), seed)
    documents = torch.repeat_interleave(torch.tensor([7, 3, 7, 5]), torch.tensor(lengths))
    documents = documents.expand_as(ids)
    packed = model(ids, document_ids=documents).logits
    separate = torch.cat([model(part).logits for part in ids.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, separate, **EXACT)
    in_segments, _ = segmented(model, ids, [40, 20, 1, 28], document_ids=documents)
    torch.testing.assert_close(in_segments, packed, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_host_memory_equals_device_memory_bitwise(seed):
    model = random_model(random_config(seed))
    ids = random_tokens(model.config, 2, 90, seed)
    sizes = [50] + [1] * 40
    on_device, device_cache = segmented(model, ids, sizes, "device")
    on_host, host_cache = segmented(model, ids, sizes, "host")
    assert torch.equal(on_device, on_host)
    assert host_cache.num_bytes()["host"] > 0
    assert device_cache.num_bytes()["host"] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_lazy_upper_prefill_equals_full_prefill(seed):
    config = random_config(seed, window_size=4)
    model = random_model(config)
    ids, more = random_tokens(config, 2, 400, seed), random_tokens(config, 2, 40, seed + 1)
    mask = torch.ones_like(ids)
    mask[1, :37] = 0  # rows end at different places of their chunks
    full = model(ids, attention_mask=mask, use_cache=True)
    lazy = model(ids, attention_mask=mask, use_cache=True, logits_to_keep=2)
    torch.testing.assert_close(lazy.logits, full.logits[:, -2:], **EXACT)
    for token in more.split(8, dim=1):  # and what it leaves behind serves the rest as well
        expected = model(token, past_key_values=full.past_key_values).logits
        found = model(token, past_key_values=lazy.past_key_values).logits
        torch.testing.assert_close(found, expected, **EXACT)


def test_lazy_upper_prefill_reads_only_the_receptive_field(monkeypatch):
    config = random_config(0, window_size=4)
    model, widths = random_model(config), []
    layer = model.model.retrieval_groups[0].layers[0]
    layer.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    ids = random_tokens(config, 1, 1000)
    model(ids, logits_to_keep=1)
    reach = config.num_upper_layers * 3 + config.num_retrieval_groups * config.chunk_size + 2
    assert widths == [reach]


@pytest.mark.parametrize("seed", SEEDS)
def test_future_tokens_cannot_change_past_logits(seed):
    model = random_model(random_config(seed))
    ids = random_tokens(model.config, 1, 80, seed)
    changed = ids.clone()
    changed[:, 41:] = random_tokens(model.config, 1, 39, seed + 100)
    before, after = model(ids).logits, model(changed).logits
    torch.testing.assert_close(after[:, :41], before[:, :41], **EXACT)
    assert not torch.allclose(after[:, 41:], before[:, 41:])


@pytest.mark.parametrize("seed", SEEDS)
def test_first_chunk_retrieves_nothing_and_no_chunk_retrieves_itself_or_a_later_one(seed):
    model = random_model(random_config(seed))
    ids = random_tokens(model.config, 2, 300, seed)
    for selection in model(ids, output_retrieval=True).retrieval:
        own = torch.arange(selection.indices.shape[1])[:, None]
        assert (selection.indices < own).all()
        assert (selection.indices[:, 0] == -1).all()
        assert (selection.weights[:, 0] == 0).all()
        filled = selection.indices >= 0
        assert (filled.sum(-1) == own.squeeze(-1).clamp_max(model.config.retrieval_top_k)).all()
        torch.testing.assert_close(
            selection.weights.sum(-1)[:, 1:], torch.ones(2, len(own) - 1).double()
        )


def test_no_chunk_retrieves_another_document():
    model = random_model(random_config(1, chunk_size=5, retrieval_top_k=9))
    ids = random_tokens(model.config, 1, 90)
    documents = (torch.arange(90) // 30).unsqueeze(0)
    selection = model(ids, document_ids=documents, output_retrieval=True).retrieval[0]
    chunk_documents = (
        torch.arange(selection.indices.shape[1]) // 8
    )  # 30 tokens: 7 chunks of 4 and one of 2
    read = chunk_documents[selection.indices.clamp_min(0)]
    same = read == chunk_documents[:, None]
    assert (same | (selection.indices < 0)).all()
    assert (selection.indices[0, [0, 8, 16]] == -1).all()


def test_a_change_to_a_far_chunk_reaches_later_logits_only_by_retrieval():
    config = random_config(2, chunk_size=5, window_size=4, retrieval_top_k=9)
    without = random_config(2, chunk_size=5, window_size=4, retrieval_method="none")
    ids = random_tokens(config, 1, 200)
    changed = ids.clone()
    changed[:, 10:14] = random_tokens(config, 1, 4, seed=5)
    learned, none = random_model(config), random_model(without)
    assert not torch.allclose(learned(ids).logits[:, -60:], learned(changed).logits[:, -60:])
    assert torch.equal(none(ids).logits[:, -60:], none(changed).logits[:, -60:])
