"""`python -m benchmarks.prefill`: tokens per second and memory of reading a prompt, by its length.

The prompt is read in segments, each with the cache that the segments before it left, and only the
last token's logits are computed, as generation does. Weights and tokens are random.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks.full_attention import full_attention_model
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
    read_length,
)
from benchmarks.report import Keep, ResultFile
from benchmarks.timing import Timing, peak_extra_mib, release_memory, wall_milliseconds
from gcattn.chunking import whole_chunks
from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.memory import MemoryTier
from gcattn.memory.cache import DRTCache
from gcattn.models import DRTConfig, DRTForCausalLM
from gcattn.testing import random_tokens


def bench_prefill(
    config: DRTConfig,
    lengths: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch: int = 1,
    segment_length: int = 16_384,
    memory_tier: MemoryTier = "device",
    trials: int = 3,
    with_full_attention: bool = False,
    slowest_seconds: float = 10.0,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
    on_row: Keep = lambda _: None,
) -> dict[str, Any]:
    """Read prompts of the given lengths.

    Args:
        config: Of the model.
        lengths: Prompt lengths in tokens.
        device: CPU or CUDA.
        dtype: Of the weights.
        batch: Rows.
        segment_length: Tokens of a segment, rounded to whole chunks; bounds memory.
        memory_tier: Where past chunks are kept.
        trials: Readings of each prompt after two that warm up, the second of which captures what
            later ones replay. Peak memory is that of the first; graphs then keep about as much.
        with_full_attention: Measure a full-attention Transformer of the same sizes too; it reads a
            prompt in one call, which FlashAttention does at its best.
        slowest_seconds: A model that takes longer for a prompt reads it only once more, and no
            longer one.
        seed: Of weights and tokens.
        on_progress: Told what begins.
        on_row: Given the result so far after every row.

    Returns:
        For each model and length: milliseconds, tokens per second, peak memory beyond the weights.
    """
    torch.manual_seed(seed)
    results: dict[str, Any] = {}
    readers: dict[str, Callable[[], tuple[torch.nn.Module, Callable[[Tensor], object]]]] = {
        "gcattn": partial(_drt_reader, config, device, dtype, segment_length, memory_tier)
    }
    if with_full_attention:
        readers["full attention (SDPA)"] = partial(_full_reader, config, device, dtype)
    for name, build in readers.items():
        model, read = build()
        by_length: dict[str, Any] = {}
        parameters = sum(p.numel() for p in model.parameters())
        results[name] = {"parameters": parameters, "lengths": by_length}
        reason = ""
        for length in lengths:
            on_progress(f"{name}: reading {length:,} tokens")
            if not reason:
                tokens = random_tokens(config, batch, length, seed).to(device)
                by_length[str(length)] = row = _measure(
                    partial(read, tokens), tokens, trials, slowest_seconds
                )
                reason = row.get("unavailable", "")
                if row.get("median_ms", 0.0) > 1e3 * slowest_seconds:
                    reason = f"not run: took above {slowest_seconds:g} s at {length:,} tokens"
            else:
                by_length[str(length)] = {"unavailable": reason}
            on_row(results)
            release_memory(device)
        del model, read
        release_memory(device)
    return results


def _drt_reader(
    config: DRTConfig,
    device: torch.device,
    dtype: torch.dtype,
    segment_length: int,
    memory_tier: MemoryTier,
) -> tuple[torch.nn.Module, Callable[[Tensor], object]]:
    # a method of PreTrainedModel hides its type
    model: Any = DRTForCausalLM(config).eval()
    model.to(device=device, dtype=dtype)

    @torch.inference_mode()
    def read(tokens: Tensor) -> object:
        cache = DRTCache(config, memory_tier, expected_tokens=tokens.shape[1])
        output = None
        for segment in tokens.split(whole_chunks(segment_length, config.chunk_size), dim=1):
            output = model(segment, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output

    return model, read


def _full_reader(
    config: DRTConfig, device: torch.device, dtype: torch.dtype
) -> tuple[torch.nn.Module, Callable[[Tensor], object]]:
    model = full_attention_model(config, device, dtype)

    @torch.inference_mode()
    def read(tokens: Tensor) -> object:
        return model(tokens, use_cache=True, logits_to_keep=1)

    return model, read


def _measure(
    read: Callable[[], object], tokens: Tensor, trials: int, slowest_seconds: float
) -> dict[str, Any]:
    device = tokens.device
    try:
        peak = peak_extra_mib(read, device)
        if wall_milliseconds(read, device) > 1e3 * slowest_seconds:
            trials = 1
        timing = Timing.of([wall_milliseconds(read, device) for _ in range(trials)])
    except torch.OutOfMemoryError:
        return {"unavailable": OUT_OF_MEMORY}
    rate = tokens.numel() / timing.median_ms * 1e3
    return {**timing.as_dict(), "tokens_per_second": rate, "peak_mib": peak}


def command(
    preset: Presets = None,
    lengths: Lengths = None,
    batch: Batch = 1,
    segment_length: Annotated[
        str, typer.Option(help="Tokens read at a time, such as 16k; bounds memory.")
    ] = "16k",
    memory_tier: Annotated[
        MemoryTier, typer.Option(help="Tier that keeps past chunks.")
    ] = "device",
    trials: Annotated[
        int, typer.Option(min=1, callback=countable, help="Times that each prompt is read.")
    ] = 3,
    full_attention: FullAttention = None,
    slowest_seconds: Annotated[
        float, typer.Option(min=0, help="Models slower than this, in seconds, skip longer prompts.")
    ] = 10.0,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Measure prefill: tokens per second and memory by prompt length."""
    from benchmarks.plots import plot_prefill
    from benchmarks.tables import prefill_table

    run = begin_model_run(
        preset,
        lengths,
        full_attention,
        device,
        out,
        on_gpu="1k,2k,4k,8k,16k,32k,64k,128k,256k,512k,1m",
        on_cpu="1k,4k",
    )
    segment = read_length("--segment-length", segment_length)
    run.check_memory(batch * max(run.lengths))
    settings = run.settings() | {
        "batch": batch,
        "segment_length": segment,
        "memory_tier": memory_tier,
        "data": "random token ids",
    }
    result = ResultFile("prefill", settings, out=out, seed=seed, trials=trials)
    metrics = run.measure(
        lambda config, on_progress, on_row: bench_prefill(
            config,
            run.lengths,
            run.device,
            run.dtype,
            batch=batch,
            segment_length=segment,
            memory_tier=memory_tier,
            trials=trials,
            with_full_attention=run.with_full_attention,
            slowest_seconds=slowest_seconds,
            seed=seed,
            on_progress=on_progress,
            on_row=on_row,
        ),
        result,
    )
    result.finish(metrics, prefill_table, plot_prefill)


if __name__ == "__main__":
    run_command(command, "benchmarks.prefill")
