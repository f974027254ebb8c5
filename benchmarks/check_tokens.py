"""Checks of decoded tokens: fixed shapes, captured as a graph, beside planned calls."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

import gcattn.models.modeling_drt as modeling
from gcattn import DRTCache
from gcattn.memory import MemoryTier
from gcattn.testing import random_config, random_model, random_tokens

DEVICE = "cuda"
TIERS: tuple[MemoryTier, ...] = ("device", "host")
SEEDS, READ, DECODED = 6, 40, 150
# float32 sums in another order
TOLERANCE = 1e-3


@contextmanager
def _setting(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _planned() -> AbstractContextManager[None]:
    """Plan every call as if there were no fixed shapes."""
    return _setting(modeling, "decode_token", lambda *_: None)


@torch.no_grad()
def _logits() -> str:
    """Decode padded rows, copy the cache on the way, and compare every logit."""
    worst, graphs = 0.0, 0
    for seed in range(SEEDS):
        for tier in TIERS:
            difference, captured = _difference(seed, tier)
            worst, graphs = max(worst, difference), graphs + captured
    assert worst < TOLERANCE, f"a logit differs by {worst:.2e}"
    assert graphs > 0, "no token and landmark were captured as graphs"
    return f"largest difference {worst:.1e}, {graphs} of {SEEDS * len(TIERS)} caches with graphs"


def _difference(seed: int, tier: MemoryTier) -> tuple[float, bool]:
    # kernels need a head size that tiles
    config = random_config(seed, chunk_size=33, head_dim=16)
    # a wrapper of transformers hides its type
    model: Any = random_model(config)
    model.to(device=DEVICE, dtype=torch.float32)
    ids = random_tokens(config, 3, READ + DECODED, seed).to(DEVICE)
    mask = torch.ones_like(ids)
    mask[1, :29], mask[2, :37], mask[1, 60:75] = 0, 0, 0
    fast, plain = DRTCache(config, tier), DRTCache(config, tier)
    for cache in (fast, plain):
        model(ids[:, :READ], attention_mask=mask[:, :READ], past_key_values=cache)
    worst = 0.0
    for at in range(READ, READ + DECODED):
        token = ids[:, at : at + 1]
        here = None if bool(mask[:, at].all()) else mask[:, at : at + 1]
        logits = []
        for cache, way in ((fast, nullcontext()), (plain, _planned())):
            with way:
                logits.append(model(token, attention_mask=here, past_key_values=cache).logits)
        read = mask[:, at].bool()
        worst = max(worst, (logits[0] - logits[1])[read].abs().max().item())
        if at == READ + 80:
            fast = copy.deepcopy(fast)
    assert fast._fixed is not None, "no token ran in fixed shapes"
    steps = (fast._fixed.token, fast._fixed.landmark)
    return worst, all(step.captured is not None for step in steps)


def _generated() -> str:
    """Generate with captured tokens and with planned calls: the same ids."""
    config = random_config(3, chunk_size=33, head_dim=16)
    # a wrapper of transformers hides its type
    model: Any = random_model(config)
    model.to(device=DEVICE, dtype=torch.float32)
    ids = random_tokens(config, 2, READ).to(DEVICE)
    sequences = []
    for way in (nullcontext(), _planned()):
        with way:
            made = model.generate(ids, max_new_tokens=150, do_sample=False, pad_token_id=60)
            sequences.append(made)
    assert torch.equal(*sequences), "generate() gives other tokens"
    return "the same tokens"


@torch.no_grad()
def _late_hook() -> str:
    """Register a hook after the capture: it has to be run all the same."""
    config = random_config(3, chunk_size=33, head_dim=16)
    # a wrapper of transformers hides its type
    model: Any = random_model(config)
    model.to(device=DEVICE, dtype=torch.float32)
    ids = random_tokens(config, 2, READ).to(DEVICE)
    cache = DRTCache(config)
    calls: list[None] = []
    model(ids, past_key_values=cache)
    for at in range(20):
        model(ids[:, at : at + 1], past_key_values=cache)
    hook = model.model.norm.register_forward_hook(lambda *_: calls.append(None))
    model(ids[:, :1], past_key_values=cache)
    hook.remove()
    assert len(calls) == 1, f"the hook was run {len(calls)} times"
    return "run once"


TOKEN_CHECKS: dict[str, Callable[[], str]] = {
    "logits of captured tokens": _logits,
    "generate() with captured tokens": _generated,
    "a hook after the capture": _late_hook,
}
