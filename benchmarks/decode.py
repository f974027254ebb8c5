"""`python -m benchmarks.decode`: the time of a generated token by the length of the context.

Tokens are generated greedily, and a token's time is what a user waits for: of the model alone, one
call each, from an idle device to the next token's id; through `generate()`, from one id handed out
to the next. Contexts are random chunks put into the memory; a full-attention Transformer of the
same sizes has a cache of as many random tokens, and runs both as it is and compiled.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.generation.streamers import BaseStreamer

from benchmarks.filled_cache import filled_cache
from benchmarks.full_attention import (
    compile_decoding,
    filled_full_cache,
    filled_static_cache,
    full_attention_model,
)
from benchmarks.model_run import begin_model_run
from benchmarks.op_timing import OUT_OF_MEMORY
from benchmarks.options import (
    Batch,
    Device,
    FullAttention,
    Lengths,
    Out,
    Presets,
    Seed,
)
from benchmarks.report import Keep, ResultFile
from benchmarks.timing import release_memory, wait_for
from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.memory import MemoryTier
from gcattn.memory.cache import DRTCache
from gcattn.models import DRTConfig, DRTForCausalLM
from gcattn.models.cache_name import named_cache

# the first calls warm up
WARMUP_TOKENS = 4
# and on a GPU chunks have to be closed, until landmarks are replayed
WARMUP_CHUNKS = 2
PEER_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def bench_decoding(
    config: DRTConfig,
    lengths: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    *,
    tiers: Sequence[MemoryTier] = ("device", "host"),
    batch: int = 1,
    num_tokens: int = 192,
    with_full_attention: bool = False,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
    on_row: Keep = lambda _: None,
) -> dict[str, Any]:
    """Generate behind contexts of several lengths.

    Args:
        config: Of the model.
        lengths: Context lengths in tokens.
        device: CPU or CUDA.
        dtype: Of weights and memory.
        tiers: Where past chunks are kept.
        batch: Rows that generate at once.
        num_tokens: Timed tokens; every (S - 1)-th closes a chunk and retrieves anew.
        with_full_attention: Measure a full-attention Transformer of the same sizes too.
        seed: Of weights, contexts and first token.
        on_progress: Told what begins.
        on_row: Given the result so far after every row.

    Returns:
        For each way to keep the past and each length: milliseconds per token (median, 90th
        percentile, and the median of tokens that close a chunk), and the bytes that the past takes.
    """
    torch.manual_seed(seed)
    # a method of PreTrainedModel hides its type
    model: Any = DRTForCausalLM(config).eval()
    model.to(device=device, dtype=dtype)
    results: dict[str, Any] = {}

    def drt(tier: MemoryTier, length: int) -> dict[str, Any]:
        cache = filled_cache(model, tier, batch, length, seed)
        period = config.chunk_size - 1
        row = time_tokens(model, cache, batch, num_tokens, period)
        return row | {"bytes": cache.num_bytes()}

    def generate(tier: MemoryTier, length: int) -> dict[str, Any]:
        cache = filled_cache(model, tier, batch, length, seed)
        return time_generate(model, cache, num_tokens, config.chunk_size - 1) | {
            "bytes": cache.num_bytes()
        }

    def keep(rows: dict[str, Any]) -> None:
        results.update(rows)
        on_row(results)

    for tier in tiers:
        name = f"gcattn, {tier} memory"
        by_length(name, partial(drt, tier), lengths, device, on_progress, keep)
        name = f"gcattn, {tier} memory, generate()"
        by_length(name, partial(generate, tier), lengths, device, on_progress, keep)
    if with_full_attention:
        del model
        release_memory(device)
        full_attention_by_length(
            config, lengths, device, dtype, num_tokens, on_progress, keep, batch
        )
    return results


def full_attention_by_length(
    config: DRTConfig,
    lengths: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    num_tokens: int,
    on_progress: Callable[[str], None],
    on_row: Keep,
    batch: int = 1,
) -> None:
    """Generate with a full-attention Transformer of the same sizes, until its cache does not fit.

    See `bench_decoding` for the arguments.
    """
    if device.type == "cpu":
        dtype = torch.float32  # which it is faster in: PyTorch's products of 16 bits are slow there
    peer = full_attention_model(config, device, dtype)

    def full(fill: Callable[..., Any], length: int) -> dict[str, Any]:
        torch.compiler.reset()  # another length is another graph, not one of changing shapes
        cache = fill(peer, batch, length, num_tokens + WARMUP_TOKENS)
        # cuDNN, which torch prefers on some GPUs, plans anew for every length of the keys
        with sdpa_kernel(PEER_BACKENDS):
            row = time_tokens(peer, cache, batch, num_tokens, None)
        per_token = 2 * config.num_key_value_heads * config.head_dim * dtype.itemsize
        held = batch * length * per_token * config.num_hidden_layers
        return row | {"bytes": {"device": held, "host": 0}}

    name = "full attention (SDPA)"
    by_length(name, partial(full, filled_full_cache), lengths, device, on_progress, on_row)
    compile_decoding(peer)
    name = "full attention (SDPA), compiled, static cache"
    by_length(name, partial(full, filled_static_cache), lengths, device, on_progress, on_row)


def by_length(
    name: str,
    measure: Callable[[int], dict[str, Any]],
    lengths: Sequence[int],
    device: torch.device,
    on_progress: Callable[[str], None],
    on_row: Keep,
) -> None:
    """Measure each length; after each, hand all rows so far to `on_row`, under the name."""
    rows: dict[str, Any] = {}
    for length in lengths:
        on_progress(f"{name}: {length:,} tokens of context")
        try:
            rows[str(length)] = measure(length)
        except torch.OutOfMemoryError:
            rows[str(length)] = {"unavailable": OUT_OF_MEMORY}
        on_row({name: rows})
        release_memory(device)


@torch.inference_mode()
def time_tokens(
    model: Any,
    cache: Any,
    batch: int,
    num_tokens: int,
    period: int | None,
    token: Tensor | None = None,
    read: int = 0,
) -> dict[str, Any]:
    """Generate behind a cache.

    Args:
        model: DRT or full attention.
        cache: What it has read.
        batch: Rows of the cache.
        num_tokens: Timed tokens.
        period: Tokens from one that closes a chunk to the next; None: there are no chunks.
        token: The first one, [B, 1].
        read: Tokens in the cache's open chunk, if it has chunks.

    Returns:
        Milliseconds per token and tokens per second.
    """
    device = model.device
    if token is None:
        token = torch.zeros(batch, 1, dtype=torch.long, device=device)
    times, closing = [], []
    warmup = _warmup_tokens(device, period)
    for number in range(warmup + num_tokens):
        wait_for(device)
        began = time.perf_counter()
        token = _next(model, cache, token)
        wait_for(device)
        if number < warmup:
            continue
        times.append((time.perf_counter() - began) * 1e3)
        if period is not None and (read + number + 1) % period == 0:
            closing.append(times[-1])
    closing_ms = float(np.median(closing)) if closing else None
    return _percentiles(times, batch) | {"closing_median_ms": closing_ms}


@torch.inference_mode()
def time_generate(model: Any, cache: DRTCache, num_tokens: int, period: int) -> dict[str, Any]:
    """Time the tokens that `generate()` hands to a streamer; see `time_tokens`."""
    clock, batch = _Clock(), cache.num_rows or 1
    warmup = _warmup_tokens(model.device, period)
    model.generate(
        torch.zeros(batch, 1, dtype=torch.long, device=model.device),
        cache=cache,
        max_new_tokens=num_tokens + warmup,
        eos_token_id=None,
        do_sample=False,
        streamer=clock,
    )
    # the prompt is handed out too
    times = np.diff(clock.times)[warmup:] * 1e3
    return _percentiles(times.tolist(), batch)


def _warmup_tokens(device: torch.device, period: int | None) -> int:
    if period is None or device.type != "cuda":
        return WARMUP_TOKENS
    return WARMUP_TOKENS + WARMUP_CHUNKS * period


class _Clock(BaseStreamer):
    """Notes when tokens come."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        """Note a token, which is on the CPU already."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to do."""


def _percentiles(times: Sequence[float], batch: int) -> dict[str, Any]:
    """Describe milliseconds of tokens, each of `batch` rows."""
    low, middle, high, highest = (float(x) for x in np.percentile(times, [20, 50, 90, 99]))
    return {
        "median_ms": middle,
        "p20_ms": low,
        "p90_ms": high,
        "p99_ms": highest,
        "tokens": len(times),
        "tokens_per_second": batch / middle * 1e3,
        "mean_tokens_per_second": batch / float(np.mean(times)) * 1e3,
    }


def _next(model: Any, cache: Any, token: Tensor) -> Tensor:
    logits = model(token, **named_cache(cache), use_cache=True, logits_to_keep=1).logits
    return logits[:, -1:].argmax(-1)  # [B, 1]


def command(
    preset: Presets = None,
    lengths: Lengths = None,
    batch: Batch = 1,
    tokens: Annotated[int, typer.Option(min=2, callback=countable, help="Tokens to time.")] = 192,
    full_attention: FullAttention = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time a generated token after long contexts, with memory on the device and on the host."""
    from benchmarks.plots import plot_decoding
    from benchmarks.tables import decoding_table

    run = begin_model_run(
        preset,
        lengths,
        full_attention,
        device,
        out,
        on_gpu="1k,4k,16k,64k,256k,1m",
        on_cpu="1k,16k",
        dtype_on_cpu=torch.bfloat16,  # whose weights arrive in half the time
    )
    run.check_memory(batch * (max(run.lengths) + tokens))
    settings = run.settings() | {
        "batch": batch,
        "tokens": tokens,
        "contexts": "random chunks put into the memory; random keys and values of full attention",
    }
    result = ResultFile("decoding", settings, out=out, seed=seed, trials=tokens)
    metrics = run.measure(
        lambda config, on_progress, on_row: bench_decoding(
            config,
            run.lengths,
            run.device,
            run.dtype,
            batch=batch,
            num_tokens=tokens,
            with_full_attention=run.with_full_attention,
            seed=seed,
            on_progress=on_progress,
            on_row=on_row,
        ),
        result,
    )
    result.finish(metrics, decoding_table, plot_decoding)


if __name__ == "__main__":
    run_command(command, "benchmarks.decode")
