"""Device against host memory: bytes held by each, and the latency of a decoded token.

Only the store is measured, not how it was filled: chunks are random, the model is untrained.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median, quantiles
from typing import Any, get_args

import torch

from gcattn.memory import EncodedChunks, MemoryTier
from gcattn.memory.cache import DRTCache
from gcattn.models import DRTConfig, DRTForCausalLM

# chunks made at a time while a memory is filled
FILL_CHUNKS = 512


def measure_memory_tiers(
    config: DRTConfig,
    lengths: Sequence[int],
    *,
    device: str,
    dtype: torch.dtype,
    num_tokens: int,
    on_length: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Decode behind contexts of several lengths with either memory.

    Args:
        config: Of the model.
        lengths: Context lengths in tokens.
        device: Where the model computes.
        dtype: Of the weights and the memory.
        num_tokens: Decoded tokens, of which about every (S - 1)-th asks the memory anew.
        on_length: Told what begins.

    Returns:
        For each tier and length: bytes on the device and on the host, seconds per token (median and
        95th percentile), the median over the tokens that close a chunk; and whether both tiers gave
        the same logits, bit for bit.
    """
    torch.manual_seed(0)
    model = DRTForCausalLM(config).eval()
    model.to(device=device, dtype=dtype)
    tokens = torch.randint(0, config.vocab_size, (1, num_tokens), device=device)
    tiers: dict[MemoryTier, Any] = {tier: {} for tier in get_args(MemoryTier)}
    same = {}
    for length in lengths:
        logits = []
        for tier in tiers:
            on_length(f"{tier} memory, {length:,} tokens")
            cache = _filled_cache(model, tier, length // (config.chunk_size - 1))
            measured, last = _decode(model, cache, tokens)
            tiers[tier][str(length)] = {"bytes": cache.num_bytes(), **measured}
            logits.append(last)
            del cache
        same[str(length)] = bool(torch.equal(*logits))
    return {"tiers": tiers, "logits_are_equal": same}


def _filled_cache(model: DRTForCausalLM, tier: MemoryTier, num_chunks: int) -> DRTCache:
    config, weight = model.config, model.lm_head.weight
    cache = DRTCache(config, tier)
    with torch.inference_mode():
        # one chunk through the model brings the other parts of the cache to life
        first = torch.zeros(1, config.chunk_size - 1, dtype=torch.long, device=weight.device)
        model(first, past_key_values=cache)
        generator = torch.Generator(weight.device).manual_seed(num_chunks)
        pool = (config.chunk_size, config.num_key_value_heads, config.head_dim)
        for start in range(1, num_chunks, FILL_CHUNKS):
            count = min(FILL_CHUNKS, num_chunks - start)
            landmarks, keys, values = (
                torch.randn(1, count, *shape, generator=generator, device=weight.device).to(weight)
                for shape in ((config.hidden_size,), pool, pool)
            )
            full = torch.full((1, count), config.chunk_size - 1, device=weight.device)
            chunks = EncodedChunks(landmarks, torch.zeros_like(full), keys, values, full)
            cache.memory.append(chunks, torch.tensor([count]))
        at = torch.tensor([num_chunks])
        state = cache.position.state
        assert state is not None  # the first chunk made it
        state = replace(state, num_chunks=at, next_position=at * config.chunk_size)
        cache.position.move(state)
    return cache


@torch.inference_mode()
def _decode(
    model: DRTForCausalLM, cache: DRTCache, tokens: torch.Tensor
) -> tuple[dict[str, float], torch.Tensor]:
    seconds, closing = [], []
    logits = torch.empty(0)
    for step in range(tokens.shape[1]):
        _wait(tokens)
        began = time.perf_counter()
        logits = model(tokens[:, step : step + 1], past_key_values=cache).logits
        _wait(tokens)
        seconds.append(time.perf_counter() - began)
        if (step + 1) % (model.config.chunk_size - 1) == 0:
            closing.append(seconds[-1])
    steady = seconds[3:]  # the first calls warm up
    return {
        "seconds_per_token": median(steady),
        "seconds_per_token_95th_percentile": quantiles(steady, n=20)[-1],
        "seconds_per_closing_token": median(closing),
    }, logits


def _wait(tokens: torch.Tensor) -> None:
    if tokens.is_cuda:
        torch.cuda.synchronize()
