"""The landmark behind a token that closes a chunk is a column of its own, in fixed shapes."""

import copy
import gc
from weakref import ref

import pytest
import torch

from gcattn import DRTCache
from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.fixed_stream import FixedStream
from gcattn.memory.last_retrieval import LastRetrieval
from gcattn.models import modeling_drt, token_step
from gcattn.nn.retriever import Retrieval
from gcattn.testing import random_config, random_model, random_tokens

EXACT = {"rtol": 0, "atol": 1e-10}
WINDOWS = ("lower", "upper")


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def landmarks(monkeypatch):
    """Count the landmarks that were read in fixed shapes."""
    seen, original = [], FixedStream.commit_landmark

    def commit(self):
        seen.append(None)
        original(self)

    monkeypatch.setattr(FixedStream, "commit_landmark", commit)
    return seen


def contents(cache):
    return {
        f"{name}.{key}": x.clone()
        for name, state in cache.states().items()
        for key, x in state.tensors().items()
    }


def planned(model, ids, cache, mask=None):
    return model(ids, attention_mask=mask, past_key_values=cache, output_retrieval=True).logits


def read(model, ids, *caches, tokens):
    for cache in caches:
        for at in tokens:
            model(ids[:, at : at + 1], past_key_values=cache)


@pytest.mark.parametrize("tier", ["device", "recompute"])
@pytest.mark.parametrize(
    "seed", [4, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 14))]
)
def test_replayed_landmarks_equal_planned_calls(seed, tier, landmarks, graphs):
    # rows close their chunks at different tokens; one of them pauses
    model = random_model(random_config(seed, chunk_size=(6, 9)[seed % 2]), seed)
    end = 54 if seed > 4 else 48
    ids = random_tokens(model.config, 3, end, seed)
    mask = torch.ones_like(ids)
    mask[1, :3], mask[2, :1], mask[1, 30:37] = 0, 0, 0
    fast, plain = DRTCache(model.config, tier), DRTCache(model.config, tier)
    for cache in (fast, plain):
        model(ids[:, :14], attention_mask=mask[:, :14], past_key_values=cache)
    for at in range(14, end):
        here = None if mask[:, at].all() else mask[:, at : at + 1]
        token, runs = ids[:, at : at + 1], mask[:, at].bool()
        found = model(token, attention_mask=here, past_key_values=fast).logits
        expected = planned(model, token, plain, here)
        torch.testing.assert_close(found[runs], expected[runs], **EXACT, msg=f"token {at}")
    assert len(landmarks) > 8
    assert graphs.replays > 24 + len(landmarks)
    assert fast._fixed.landmark.captured is not None
    found, expected = contents(fast), contents(plain)
    for name in expected:
        if name.split(".")[0] not in WINDOWS:  # which may begin with columns that are not used
            torch.testing.assert_close(found[name], expected[name], **EXACT, msg=name)


def test_decoding_plans_nothing_whatever_the_phases_of_the_rows(monkeypatch, landmarks):
    model = random_model(random_config(3, chunk_size=6))
    ids = random_tokens(model.config, 2, 50)
    mask = torch.ones(2, 14)
    mask[1, :3] = 0
    cache = DRTCache(model.config)
    model(ids[:, :14], attention_mask=mask, past_key_values=cache)
    read(model, ids, cache, tokens=range(14, 16))
    monkeypatch.setattr(modeling_drt, "plan_call", None)
    read(model, ids, cache, tokens=range(16, 50))
    assert len(landmarks) == 14  # 7 of each row


@pytest.mark.parametrize("method", ["none", "off", "random"])
def test_other_ways_to_retrieve_equal_planned_calls(method, landmarks, graphs):
    # embeddings come in place of ids
    model = random_model(random_config(4, chunk_size=6, retrieval_method=method))
    ids = random_tokens(model.config, 2, 36)
    fast, plain = DRTCache(model.config), DRTCache(model.config)
    for cache in (fast, plain):
        model(ids[:, :14], past_key_values=cache)
    for at in range(14, 36):
        embeds, logits = model.model.embed_tokens(ids[:, at : at + 1]), []
        for cache, wants in ((fast, False), (plain, True)):
            torch.manual_seed(at)
            out = model(inputs_embeds=embeds, past_key_values=cache, output_retrieval=wants)
            logits.append(out.logits)
        torch.testing.assert_close(*logits, **EXACT)
    assert len(landmarks) == 4
    assert fast.fixed().landmark.captured is not None


def test_a_hook_registered_after_the_capture_is_run_for_landmarks_too(graphs):
    model = random_model(random_config(3, chunk_size=6))
    ids = random_tokens(model.config, 1, 50)
    fast, plain, calls = DRTCache(model.config), DRTCache(model.config), []
    for cache in (fast, plain):
        model(ids[:, :14], past_key_values=cache)
    read(model, ids, fast, tokens=range(14, 34))
    for at in range(14, 34):
        planned(model, ids[:, at : at + 1], plain)
    assert fast.fixed().landmark.captured is not None
    graphs.is_stale = True
    layer = model.model.lower_layers[0]
    hook = layer.register_forward_hook(lambda module, args, out: calls.append(None) or 2 * out)
    for at in range(34, 37):
        found = model(ids[:, at : at + 1], past_key_values=fast).logits
        expected = planned(model, ids[:, at : at + 1], plain)
        torch.testing.assert_close(found, expected, **EXACT)
    hook.remove()
    # three tokens and a landmark, and three planned calls
    assert len(calls) == 7
    assert fast.fixed().landmark.captured is None


def test_a_cache_with_captured_columns_is_freed_as_soon_as_nobody_holds_it(graphs):
    # no circle: memory of a GPU would wait for Python's garbage collection
    model = random_model(random_config(3, chunk_size=6))
    ids = random_tokens(model.config, 1, 34)
    cache = DRTCache(model.config)
    model(ids[:, :14], past_key_values=cache)
    read(model, ids, cache, tokens=range(14, 34))
    assert cache.fixed().landmark.captured is not None
    seen = [ref(x) for x in (cache, cache.fixed(), cache.memory)]
    gc.disable()
    try:
        del cache
        assert not any(x() for x in seen)
    finally:
        gc.enable()


def parts_of(model):
    """Name what runs for a landmark, in its order."""
    core = model.model
    layers = [layer for group in core.retrieval_groups for layer in group.layers]
    return [*core.lower_layers, core.chunk_encoder, *layers, core.norm]


def fail_after(monkeypatch, kind, name):
    original = getattr(kind, name)

    def interrupted(*args, **kwargs):
        original(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(kind, name, interrupted)


def begun(tier="device"):
    """Read up to the token that closes a chunk, whose landmark retrieves."""
    config = random_config(3, chunk_size=9, window_size=4, embedding_convolution_size=3)
    model = random_model(config)
    ids = random_tokens(config, 2, 60)
    cache = DRTCache(config, tier)
    model(ids[:, :30], past_key_values=cache)
    read(model, ids, cache, tokens=range(30, 39))
    assert cache.fixed().open_lengths() == [7, 7]
    return model, ids, cache


@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ChunkMemory, "append"),
        (ChunkMemory, "fetch"),
        (LastRetrieval, "keep"),
        (FixedStream, "commit_landmark"),
    ],
)
def test_a_landmark_that_fails_leaves_no_trace(kind, name, tier, monkeypatch, landmarks):
    model, ids, cache = begun(tier)
    failed, whole = copy.deepcopy(cache), copy.deepcopy(cache)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_after(patch, kind, name)
        read(model, ids, failed, tokens=[39])
    expected = contents(whole)
    found = contents(copy.deepcopy(failed))
    assert all(torch.equal(found[name], x) for name, x in expected.items())
    go_on(model, ids, failed, whole)


def test_a_landmark_that_fails_in_a_layer_leaves_no_trace(landmarks):
    model, ids, cache = begun()
    for part in parts_of(model):
        failed, whole = copy.deepcopy(cache), copy.deepcopy(cache)
        calls = []

        def interrupt(*args, calls=calls, part=part):
            calls.append(None)
            # the token runs it first, but for the encoder
            if len(calls) == 2 or part is model.model.chunk_encoder:
                raise KeyboardInterrupt

        hook = part.register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            read(model, ids, failed, tokens=[39])
        hook.remove()
        found, expected = contents(failed), contents(whole)
        assert all(torch.equal(found[name], x) for name, x in expected.items())
    assert not landmarks
    go_on(model, ids, failed, whole)


def go_on(model, ids, failed, whole):
    for at in range(39, 60):
        token = ids[:, at : at + 1]
        found = model(token, past_key_values=failed).logits
        torch.testing.assert_close(found, planned(model, token, whole), **EXACT)


def test_a_retrieval_of_another_kind_is_planned(landmarks):
    model, ids, cache = begun()
    plain = copy.deepcopy(cache)
    noisy = Retrieval(model.config.retrieval_top_k, noise="gumbel")
    torch.manual_seed(0)
    model(ids[:, 39:40], past_key_values=cache, retrieval=noisy)
    torch.manual_seed(0)
    model(ids[:, 39:40], past_key_values=plain, retrieval=noisy, output_retrieval=True)
    assert not landmarks
    found, expected = contents(cache), contents(plain)
    assert all(torch.equal(found[name], x) for name, x in expected.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("serves", ["next_chunk", "from_landmark"])
def test_captured_landmarks_never_wait_for_the_gpu(serves, landmarks):
    config = random_config(3, chunk_size=9, head_dim=16, retrieval_serves=serves)
    model = random_model(config).float().cuda()
    ids = random_tokens(config, 2, 80).cuda()
    cache = DRTCache(config, expected_tokens=100)
    model(ids[:, :14], past_key_values=cache)
    read(model, ids, cache, tokens=range(14, 50))
    assert cache.fixed().landmark.captured is not None
    torch.cuda.set_sync_debug_mode("error")
    try:
        read(model, ids, cache, tokens=range(50, 80))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(landmarks) > 6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize("seed", range(6))
def test_captured_landmarks_equal_computed_ones(seed, tier, monkeypatch):
    config = random_config(seed, chunk_size=9, head_dim=16)
    model = random_model(config).float().cuda()
    ids = random_tokens(config, 3, 80, seed).cuda()
    mask = torch.ones_like(ids)
    mask[1, :3], mask[2, :1] = 0, 0
    logits = []
    for until_capture in (1000, token_step.LANDMARKS_UNTIL_CAPTURE):
        monkeypatch.setattr(token_step, "LANDMARKS_UNTIL_CAPTURE", until_capture)
        cache = DRTCache(config, tier)
        model(ids[:, :14], attention_mask=mask[:, :14], past_key_values=cache)
        steps = [model(ids[:, i : i + 1], past_key_values=cache).logits for i in range(14, 80)]
        logits.append(torch.cat(steps, dim=1))
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_columns_are_captured_on_a_device_that_is_not_the_current_one(landmarks):
    config = random_config(3, chunk_size=9, head_dim=16)
    model = random_model(config).float().to("cuda:1")
    ids = random_tokens(config, 2, 80).to("cuda:1")
    fast, plain = DRTCache(config), DRTCache(config)
    for cache in (fast, plain):
        model(ids[:, :14], past_key_values=cache)
    for at in range(14, 80):
        token = ids[:, at : at + 1]
        found = model(token, past_key_values=fast).logits
        expected = planned(model, token, plain)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert fast.fixed().landmark.captured is not None
