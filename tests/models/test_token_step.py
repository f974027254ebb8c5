"""A token that closes no chunk runs in fixed shapes and gives what an ordinary call gives."""

import copy

import pytest
import torch

from gcattn import DRTCache, load_cache, save_cache
from gcattn.memory.fixed_stream import FixedStream
from gcattn.models import token_step
from gcattn.testing import random_config, random_model, random_tokens

EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def steps(monkeypatch):
    """Count the tokens that ran in fixed shapes."""
    seen, original = [], FixedStream.commit_token

    def commit(self, *args):
        seen.append(None)
        original(self, *args)

    monkeypatch.setattr(FixedStream, "commit_token", commit)
    return seen


def ordinary(model, ids, cache, mask=None):
    """Run one call that is planned."""
    return model(ids, attention_mask=mask, past_key_values=cache, output_retrieval=True)


def contents(cache):
    return {
        f"{name}.{key}": x.clone()
        for name, state in cache.states().items()
        for key, x in state.tensors().items()
    }


def assert_close(cache, other):
    found, expected = contents(cache), contents(other)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        if name.split(".")[0] in ("lower", "upper"):
            continue  # windows may begin with columns that are not used
        torch.testing.assert_close(found[name], x, **EXACT, msg=name)


@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]
)
def test_tokens_in_fixed_shapes_equal_ordinary_calls(seed, tier, steps):
    # rows are at different phases, one of them has fewer columns than a window, some pause
    model = random_model(random_config(seed))
    end = 110 if seed else 90  # the quick one has short chunks
    ids = random_tokens(model.config, 3, end, seed)
    mask = torch.ones_like(ids)
    mask[1, :29], mask[2, :37] = 0, 0
    mask[1, 60:75] = 0
    fixed, plain = DRTCache(model.config, tier), DRTCache(model.config, tier)
    for cache in (fixed, plain):
        model(ids[:, :40], attention_mask=mask[:, :40], past_key_values=cache)
    for at in range(40, end):
        here = None if mask[:, at].all() else mask[:, at : at + 1]
        token = ids[:, at : at + 1]
        found = model(token, attention_mask=here, past_key_values=fixed).logits
        expected = ordinary(model, token, plain, here).logits
        read = mask[:, at].bool()
        torch.testing.assert_close(found[read], expected[read], **EXACT)
        if at % 37 == 0:
            assert_close(fixed, plain)
    assert len(steps) > (4 if model.config.chunk_size < 8 else 18)
    assert_close(fixed, plain)


@pytest.mark.parametrize("change", ["copy", "save", "rows", "repeat", "bytes", "document"])
def test_whoever_looks_at_the_cache_sees_every_token(change, steps, tmp_path):
    model = random_model(random_config(5, chunk_size=33, window_size=13))
    ids = random_tokens(model.config, 2, 60)
    fixed, plain = DRTCache(model.config), DRTCache(model.config)
    for cache in (fixed, plain):
        model(ids[:, :40], past_key_values=cache)
    for at in range(40, 50):
        model(ids[:, at : at + 1], past_key_values=fixed)
    ordinary(model, ids[:, 40:50], plain)
    assert steps
    if change == "copy":
        fixed = copy.deepcopy(fixed)
    elif change == "save":
        save_cache(fixed, tmp_path / "cache")
        fixed = load_cache(tmp_path / "cache", model.config)
    elif change in ("rows", "repeat"):
        for cache in (fixed, plain):
            if change == "rows":
                cache.reorder_cache(torch.tensor([1, 0]))
            else:
                cache.batch_repeat_interleave(2)
        ids = ids.flip(0) if change == "rows" else ids.repeat_interleave(2, 0)
    elif change == "document":
        other = torch.full_like(ids[:, :3], 7)
        for cache in (fixed, plain):
            model(ids[:, :3], document_ids=other, past_key_values=cache)
    assert fixed.num_bytes().keys() == {"device", "host", "disk"}
    for at in range(50, 56):
        found = model(ids[:, at : at + 1], past_key_values=fixed).logits
        torch.testing.assert_close(
            found, ordinary(model, ids[:, at : at + 1], plain).logits, **EXACT
        )
    assert_close(fixed, plain)


def test_a_token_that_fails_in_fixed_shapes_leaves_no_trace(steps):
    model = random_model(random_config(5, chunk_size=33, window_size=7))
    ids = random_tokens(model.config, 2, 70)
    cache = DRTCache(model.config)
    model(ids[:, :40], past_key_values=cache)
    for at in range(40, 50):
        model(ids[:, at : at + 1], past_key_values=cache)

    def interrupt(*args):
        raise KeyboardInterrupt

    groups = [layer for group in model.model.retrieval_groups for layer in group.layers]
    for part in (*model.model.lower_layers, *groups, model.model.norm):
        failed, whole = copy.deepcopy(cache), copy.deepcopy(cache)
        for fork in (failed, whole):
            model(ids[:, 50:51], past_key_values=fork)
        taken = len(steps)
        hook = part.register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(ids[:, 51:52], past_key_values=failed)
        hook.remove()
        found, expected = contents(failed), contents(whole)
        assert len(steps) == taken
        assert all(torch.equal(found[name], x) for name, x in expected.items())


def test_beams_change_rows_after_every_token_and_run_as_planned(steps):
    model = random_model(random_config(5, chunk_size=33))
    ids = random_tokens(model.config, 1, 40)
    model.generate(ids, num_beams=3, max_new_tokens=20, do_sample=False, pad_token_id=60)
    assert not steps
    model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=60)
    assert len(steps) > 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("seed", range(6))
def test_a_captured_token_equals_a_computed_one(seed, monkeypatch):
    model = random_model(random_config(seed, chunk_size=33)).float().cuda()
    ids = random_tokens(model.config, 2, 120, seed).cuda()
    logits = []
    for computed_before in (1000, token_step.TOKENS_UNTIL_CAPTURE):
        monkeypatch.setattr(token_step, "TOKENS_UNTIL_CAPTURE", computed_before)
        cache = DRTCache(model.config)
        model(ids[:, :50], past_key_values=cache)
        steps = [model(ids[:, i : i + 1], past_key_values=cache).logits for i in range(50, 120)]
        logits.append(torch.cat(steps, dim=1))
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
