"""A call that fails leaves its cache as it was, bit for bit."""

import pytest
import torch

from gcattn import DRTCache
from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.stores import DeviceStore
from gcattn.testing import random_config, random_model, random_tokens

STATES = [0, 1, 4, 5, 23]  # tokens read before: none, an open chunk, full ones, windows that slide


@pytest.fixture(scope="module")
def model():
    sizes = {"chunk_size": 6, "num_retrieval_groups": 2, "num_upper_layers": 4, "window_size": 7}
    chunks = {"num_encoder_layers": 1, "landmark_pooling": True, "landmark_overlap": 1}
    return random_model(random_config(3, embedding_convolution_size=2, **sizes, **chunks))


def read(model, num_tokens, tier="device"):
    """Return a cache that has read two rows, the second one half as long."""
    cache = DRTCache(model.config, tier)
    if num_tokens:
        ids = random_tokens(model.config, 2, num_tokens)
        mask = torch.ones_like(ids)
        mask[1, : num_tokens // 2] = 0
        with torch.no_grad():
            model(ids, attention_mask=mask, past_key_values=cache)
    return cache


def contents(cache):
    held = {
        f"{name}.{key}": x.clone()
        for name, state in cache.states().items()
        for key, x in state.tensors().items()
    }
    return held | {"num_tokens": torch.tensor(cache.num_tokens)}


def assert_unchanged(cache, before):
    after = contents(cache)
    assert after.keys() == before.keys()
    assert [name for name in before if not torch.equal(after[name], before[name])] == []


def parts(model):
    """Return every module that runs in a forward call and holds no other one that does."""
    base = model.model
    layers = [layer for group in base.retrieval_groups for layer in group.layers]
    retrievers = [group.retriever for group in base.retrieval_groups]
    encoder = base.chunk_encoder
    own = [base.embed_tokens, base.convolution, base.norm, *base.lower_layers]
    return [*own, *encoder.layers, encoder.landmark_pool, encoder.v_proj, *retrievers, *layers]


@pytest.mark.parametrize(
    ("num_tokens", "tier"),
    [(0, "device"), (1, "host"), (4, "device"), (5, "disk"), (23, "device"), (23, "recompute")],
)
def test_an_interrupt_in_any_module_leaves_the_cache_bitwise_unchanged(model, num_tokens, tier):
    cache = read(model, num_tokens, tier)
    before, ids = contents(cache), random_tokens(model.config, 2, 13, seed=1)

    def interrupt(*args):
        raise KeyboardInterrupt

    for part in parts(model):
        hook = part.register_forward_hook(interrupt)
        with torch.no_grad(), pytest.raises(KeyboardInterrupt):
            model(ids, past_key_values=cache)
        hook.remove()
        assert_unchanged(cache, before)
    with torch.no_grad():
        expected = model(ids, past_key_values=read(model, num_tokens, tier)).logits
        assert torch.equal(model(ids, past_key_values=cache).logits, expected)


@pytest.mark.parametrize(
    ("owner", "name"), [(DeviceStore, "append"), (ChunkMemory, "fetch"), (ChunkMemory, "append")]
)
def test_a_memory_that_fails_halfway_leaves_the_cache_bitwise_unchanged(
    model, owner, name, monkeypatch
):
    cache = read(model, 23)
    before, original = contents(cache), getattr(owner, name)

    def fail(*args):
        original(*args)
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(owner, name, fail)
    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError):
        model(random_tokens(model.config, 2, 60, seed=1), past_key_values=cache)
    assert_unchanged(cache, before)


@pytest.mark.parametrize(
    "bad",
    [
        {"chunk_breaks": torch.zeros(2, 3, dtype=torch.bool)},
        {"document_ids": torch.zeros(2, 3, dtype=torch.long)},
        {"attention_mask": torch.zeros(2, 4, dtype=torch.long)},
        {"inputs_embeds": torch.zeros(2, 4, 24)},
        {"chunk_break": None},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_a_bad_argument_leaves_the_cache_bitwise_unchanged(model, bad):
    cache = read(model, 23)
    before = contents(cache)
    with torch.no_grad(), pytest.raises(ValueError):
        model(random_tokens(model.config, 2, 4), past_key_values=cache, **bad)
    assert_unchanged(cache, before)


@pytest.mark.parametrize("kwargs", [{}, {"num_beams": 2}, {"do_sample": True}], ids=str)
@pytest.mark.parametrize("at", [0, 1, 9])
def test_an_interrupt_in_a_callback_of_generate_leaves_the_cache_bitwise_unchanged(
    model, at, kwargs
):
    cache = read(model, 23)
    before, ids = contents(cache), random_tokens(model.config, 2, 31, seed=1)
    calls = []

    def interrupt(ids, scores):
        calls.append(None)
        if len(calls) > at:
            raise KeyboardInterrupt
        return scores

    if kwargs.get("num_beams"):
        cache.batch_repeat_interleave(2)
        before = contents(cache)
    with pytest.raises(KeyboardInterrupt):
        model.generate(
            ids,
            cache=cache,
            logits_processor=[interrupt],
            max_new_tokens=20,
            pad_token_id=60,
            **({"do_sample": False} | kwargs),
        )
    assert_unchanged(cache, before)
    assert len(calls) == at + 1
