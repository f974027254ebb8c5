"""Every tier gives what the device gives: bit for bit, to rounding, or within the stated error."""

import copy
import itertools
import random

import pytest
import torch

from gcattn import DRTCache, load_cache, save_cache
from gcattn.memory.stores import HostStore, Int8HostStore, NewChunks
from gcattn.memory.stores.recompute import RecomputeReader
from gcattn.testing import random_config, random_model, random_tokens

EXACT = {"rtol": 0, "atol": 1e-10}
BITWISE = ["host", "disk"]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def sizes_of(seed):
    """Draw a stream in segments of any length: a prompt, tokens, a prompt, tokens."""
    draw = random.Random(seed)
    return [draw.randint(20, 60), 1, 1, 1, 1, draw.randint(2, 30), 1, 1, draw.randint(1, 9)]


def run(model, tier, seed, cache=None):
    """Read three rows, two of them shorter, with early breaks; returns logits and the cache."""
    sizes = sizes_of(seed)
    total = sum(sizes)
    ids = random_tokens(model.config, 3, total, seed)
    mask = torch.ones_like(ids)
    mask[1, :17], mask[2, 30:40] = 0, 0
    breaks = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < 0.05
    cache = DRTCache(model.config, tier) if cache is None else cache
    logits, at = [], 0
    for size in sizes:
        piece = slice(at, at + size)
        out = model(
            ids[:, piece],
            attention_mask=mask[:, piece] if not mask[:, piece].all() else None,
            chunk_breaks=breaks[:, piece] if size > 1 else None,
            past_key_values=cache,
        )
        logits.append(torch.where(mask[:, piece, None].bool(), out.logits, 0))
        at += size
    return torch.cat(logits, dim=1), cache


@pytest.mark.parametrize("seed", range(4))
def test_host_and_disk_equal_the_device_bitwise(seed):
    model = random_model(random_config(seed))
    expected, _ = run(model, "device", seed)
    for tier in BITWISE:
        assert torch.equal(run(model, tier, seed)[0], expected)


@pytest.mark.parametrize("budget", [0, 2**28])
@pytest.mark.parametrize("seed", range(4))
def test_recomputed_chunks_equal_the_device_to_rounding(seed, budget):
    # without room for recent chunks every one that is read is made again
    model = random_model(random_config(seed))
    cache = DRTCache(model.config, "recompute")
    cache.memory.store._reader.recent.budget_bytes = budget
    found, _ = run(model, "recompute", seed, cache)
    torch.testing.assert_close(found, run(model, "device", seed)[0], **EXACT)


def test_recomputed_chunks_read_no_more_than_their_halo(monkeypatch):
    sizes = {"chunk_size": 6, "window_size": 7, "num_lower_layers": 2}
    sizes |= {"retrieval_top_k": 2}  # so few that they do not lie side by side
    config = random_config(3, **sizes, embedding_convolution_size=2, key_convolution_size=2)
    model, halos = random_model(config), []
    cache = DRTCache(config, "recompute")
    cache.memory.store._reader.recent.budget_bytes = 0
    original = RecomputeReader._read

    def read(self, runs):
        halos.extend(run.chunks.index(run.wanted[0]) for run in runs)
        return original(self, runs)

    monkeypatch.setattr(RecomputeReader, "_read", read)
    model(random_tokens(config, 1, 300), past_key_values=cache)
    # 2 · 6 + 1 columns are 3 chunks, and keys are made of the chunk before too
    assert max(halos) == 4


def test_recompute_refuses_embeddings_and_leaves_the_cache_as_it_was():
    model = random_model(random_config(3, chunk_size=6))
    cache, embeds = DRTCache(model.config, "recompute"), torch.randn(1, 20, 24).double()
    with pytest.raises(ValueError, match="makes chunks again from token ids"):
        model(inputs_embeds=embeds, past_key_values=cache)
    assert not cache.is_initialized


def test_eight_bits_are_off_by_at_most_half_a_step_of_each_head():
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(40, 9, 2, 8, generator=generator) for _ in range(2))
    keys[3] *= 1000  # a chunk and a head of their own scale
    values[5, :, 1] = 0
    store, exact = Int8HostStore(), HostStore()
    for held in (store, exact):
        held.append(NewChunks(keys, values, torch.full((40,), 8)))
    got = store.gather(torch.arange(40))
    for found, true in ((got.keys, keys), (got.values, values)):
        step = true.abs().amax(dim=(1, 3), keepdim=True) / 127
        assert ((found - true).abs() <= step / 2 * (1 + 1e-5)).all()
    assert store.num_bytes()["host"] < 0.3 * exact.num_bytes()["host"]


def test_eight_bits_choose_the_same_chunks_and_change_logits_little():
    model = random_model(random_config(1, num_retrieval_groups=1, num_upper_layers=2))
    ids = random_tokens(model.config, 2, 200)
    exact, rounded = (
        model(ids, past_key_values=DRTCache(model.config, tier), output_retrieval=True)
        for tier in ("device", "host-int8")
    )
    # the first group asks before anything rounded was read
    assert torch.equal(exact.retrieval[0].indices, rounded.retrieval[0].indices)
    spread = exact.logits.std()
    assert (exact.logits - rounded.logits).abs().max() < 0.05 * spread


@pytest.mark.parametrize("tier", ["host", "disk", "host-int8", "recompute"])
def test_rows_are_selected_copied_and_rolled_back_in_every_tier(tier):
    model = random_model(random_config(5, chunk_size=7, window_size=7))
    ids = random_tokens(model.config, 2, 60)
    caches = {t: DRTCache(model.config, t) for t in ("device", tier)}
    steps = {}
    for name, cache in caches.items():
        model(ids[:, :40], past_key_values=cache)
        cache.reorder_cache(torch.tensor([1, 0, 1]))
        fork, before = copy.deepcopy(cache), cache.snapshot()
        rows = ids[[1, 0, 1]]
        first = model(rows[:, 40:], past_key_values=cache).logits
        cache.roll_back(before)
        again = model(rows[:, 40:], past_key_values=cache).logits
        assert torch.equal(first, again)
        forked = model(rows[:, 40:], past_key_values=fork).logits
        # a fork makes chunks again that were at hand
        tolerance = EXACT if name == "recompute" else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(forked, first, **tolerance)
        steps[name] = first
    tolerance = {"rtol": 0, "atol": 0.1} if tier == "host-int8" else EXACT
    torch.testing.assert_close(steps[tier], steps["device"], **tolerance)


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        pair
        for pair in itertools.permutations(["device", "host", "disk", "recompute"], 2)
        if "recompute" in pair or "disk" in pair
    ],
)
def test_a_stream_saved_in_one_tier_goes_on_in_another(saved, loaded, tmp_path):
    model = random_model(random_config(3, chunk_size=6, window_size=4))
    ids = random_tokens(model.config, 2, 50)
    cache = DRTCache(model.config, saved)
    mask = torch.ones_like(ids)
    mask[1, :20] = 0
    model(ids, attention_mask=mask, past_key_values=cache)
    save_cache(cache, tmp_path / "stream")
    other = load_cache(tmp_path / "stream", model.config, memory_tier=loaded)
    more = random_tokens(model.config, 2, 14, seed=1)
    expected = model(more, past_key_values=cache).logits
    torch.testing.assert_close(model(more, past_key_values=other).logits, expected, **EXACT)


def test_beams_generate_the_same_in_every_tier():
    model = random_model(random_config(5, chunk_size=7))
    ids = random_tokens(model.config, 1, 40)
    options = {"num_beams": 3, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 60}
    expected = model.generate(ids, cache=DRTCache(model.config), **options)
    for tier in ("host", "disk", "recompute"):
        found = model.generate(ids, cache=DRTCache(model.config, tier), **options)
        assert torch.equal(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tier", ["host", "disk", "recompute"])
def test_tiers_equal_the_device_on_a_gpu(tier):
    model = random_model(random_config(5, chunk_size=33)).float().cuda()
    ids = random_tokens(model.config, 2, 400).cuda()
    logits = []
    for name in ("device", tier):
        cache = DRTCache(model.config, name)
        steps = [model(ids[:, :300], past_key_values=cache).logits]
        steps += [model(ids[:, i : i + 1], past_key_values=cache).logits for i in range(300, 400)]
        logits.append(torch.cat(steps, dim=1))
    if tier == "recompute":
        torch.testing.assert_close(logits[1], logits[0], rtol=1e-3, atol=1e-3)
    else:
        assert torch.equal(logits[1], logits[0])
