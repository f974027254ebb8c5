"""`python -m benchmarks.memory`: what a saved memory costs by its length and by its tier.

A memory of random chunks is written, opened in every tier several times, and asked: the time from
opening it to the first token, the time of a token after that (median, 99th percentile), the time of
a fetch, and the bytes on the device, the host and the disk. In the tier "disk" the first token is
also timed when the system has none of the memory's files in its cache. Beside it stand a
full-attention Transformer of the same sizes, until its cache does not fit, and how fast the lower
decoder makes chunks.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.decode import OUT_OF_MEMORY, full_attention_by_length, time_tokens
from benchmarks.model_run import begin_model_run
from benchmarks.options import (
    Device,
    FullAttention,
    Lengths,
    Out,
    Presets,
    Seed,
)
from benchmarks.page_cache import drop_cached_files
from benchmarks.report import Keep, ResultFile
from benchmarks.timing import release_memory, wait_for
from gcattn import MemoryWriter, open_memory
from gcattn.chunking import prompt_breaks, whole_chunks
from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.library.making import BLOCK_TOKENS
from gcattn.memory import MemoryTier
from gcattn.memory.cache import DRTCache
from gcattn.memory.saved import SavedMemory
from gcattn.memory.stream import ReadingStream
from gcattn.models import DRTConfig, DRTForCausalLM
from gcattn.testing import random_tokens

# chunks made, and segments read, at a time
WRITTEN_AT_ONCE = 2048
# tokens of the question that is asked first
QUESTION_TOKENS = 32
FETCHES = 64
# times that a memory is opened for its first token
OPENS_ON_CPU, OPENS_ON_GPU = 5, 3


def bench_memory(
    config: DRTConfig,
    lengths: list[int],
    device: torch.device,
    dtype: torch.dtype,
    *,
    tiers: list[MemoryTier],
    folder: Path,
    num_tokens: int = 192,
    num_opens: int = OPENS_ON_GPU,
    build_tokens: int = 2**20,
    segment_length: int = 2**18,
    with_full_attention: bool = False,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
    on_row: Keep = lambda _: None,
) -> dict[str, Any]:
    """Measure memories of several lengths.

    Args:
        config: Of the model.
        lengths: Tokens in the memory.
        device: CPU or CUDA.
        dtype: Of weights and memory.
        tiers: Where keys and values come from.
        folder: Where memories are written, one after the other; nothing is left in it.
        num_tokens: Timed tokens.
        num_opens: First tokens that are timed, each of a memory that is opened for it.
        build_tokens: Tokens that are read to see how fast chunks are made.
        segment_length: Tokens read at a time, rounded to whole chunks as in a library.
        with_full_attention: Measure a full-attention Transformer of the same sizes too.
        seed: Of weights, chunks and questions.
        on_progress: Told what begins.
        on_row: Given the result so far after every row.

    Returns:
        "building", and for each tier and length the times and bytes.
    """
    torch.manual_seed(seed)
    # a method of PreTrainedModel hides its type
    model: Any = DRTForCausalLM(config).eval()
    model.to(device=device, dtype=dtype)
    on_progress(f"making chunks of {build_tokens:,} tokens")
    building = _building(model, build_tokens, segment_length, seed)
    results: dict[str, Any] = {tier: {} for tier in tiers}
    metrics = {"building": building, "tiers": results}
    for length in lengths:
        saved: dict[bool, Path] = {}
        for tier in tiers:
            keys_values = tier != "recompute"
            if keys_values not in saved:
                shutil.rmtree(saved.popitem()[1], ignore_errors=True) if saved else None
                on_progress(f"writing a memory of {length:,} tokens")
                saved[keys_values] = folder / f"{length}-{keys_values}"
                write_random_memory(saved[keys_values], model, length, keys_values, seed)
            on_progress(f"{tier}: {length:,} tokens")
            try:
                row = _asked(model, saved[keys_values], tier, num_tokens, num_opens, seed)
            except torch.OutOfMemoryError:
                row = {"unavailable": OUT_OF_MEMORY}
            results[tier][str(length)] = row
            on_row(metrics)
            release_memory(device)
        for path in saved.values():
            shutil.rmtree(path)
    if with_full_attention:
        del model
        release_memory(device)

        def keep(rows: dict[str, Any]) -> None:
            results.update(rows)
            on_row(metrics)

        full_attention_by_length(config, lengths, device, dtype, num_tokens, on_progress, keep)
    return metrics


def write_random_memory(
    folder: Path, model: Any, length: int, keys_values: bool, seed: int
) -> None:
    """Write a memory of about `length` tokens, whole chunks, as one document."""
    config, weight = model.config, model.lm_head.weight
    tokens = config.chunk_size - 1
    generator = torch.Generator(weight.device).manual_seed(seed)
    pool = (config.chunk_size, config.num_key_value_heads, config.head_dim)
    shapes = ((config.hidden_size,), pool if keys_values else (0,), pool if keys_values else (0,))
    num_chunks = max(length // tokens, 1)
    with MemoryWriter(folder, model, keys_values=keys_values) as writer:
        writer.begin("random chunks")
        for start in range(0, num_chunks, WRITTEN_AT_ONCE):
            count = min(WRITTEN_AT_ONCE, num_chunks - start)
            landmarks, keys, values = (
                torch.randn(count, *shape, generator=generator, device=weight.device).to(weight)
                for shape in shapes
            )
            ids = random_tokens(config, count, tokens, seed + start).flatten()
            writer.append(landmarks, keys, values, torch.full((count,), tokens), ids)
            writer.checkpoint()
        writer.end()


@torch.inference_mode()
def _building(model: Any, num_tokens: int, segment_length: int, seed: int) -> dict[str, Any]:
    """Read segments one after the other; the first one warms up."""
    device, stream = model.device, ReadingStream(model.config)
    segment_length = whole_chunks(segment_length, model.config.chunk_size)
    ids = random_tokens(model.config, 1, segment_length, seed).to(device)
    model.model.encode_chunks(ids, stream=stream)
    segments = max(num_tokens // segment_length, 1)
    wait_for(device)
    began = time.perf_counter()
    for _ in range(segments):
        model.model.encode_chunks(ids, stream=stream)
    wait_for(device)
    seconds = time.perf_counter() - began
    tokens = segments * segment_length
    return {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}


@torch.inference_mode()
def _asked(
    model: Any, folder: Path, tier: MemoryTier, num_tokens: int, num_opens: int, seed: int
) -> dict[str, Any]:
    """Open a memory, ask a question of it and generate."""
    config, device = model.config, model.device
    uncached = list[float]()
    if tier == "disk":  # the others are as slow as the disk
        while len(uncached) < num_opens and drop_cached_files(folder):
            uncached.append(_ask_first(model, folder, tier, seed).milliseconds)
    cached = list[float]()
    for _ in range(num_opens):
        first = None  # gives back what it holds before the next one is opened
        release_memory(device)
        first = _ask_first(model, folder, tier, seed)
        cached.append(first.milliseconds)
    assert first is not None
    cache, memory = first.cache, first.memory
    row = time_tokens(model, cache, 1, num_tokens, config.chunk_size - 1, first.token, read=1)
    own, shared = cache.num_bytes(), memory.num_bytes()
    held = {place: own[place] + shared[place] for place in ("device", "host", "disk")}
    first_tokens = _described("first_token", cached) | {"opens": num_opens}
    if uncached:
        first_tokens |= _described("uncached_first_token", uncached)
    return (
        row
        | first_tokens
        | {
            "fetch_ms": _fetch_ms(cache, memory.num_chunks, config.retrieval_top_k, device, seed),
            "bytes": held,
        }
    )


class _First(NamedTuple):
    """A first token, and what the next ones are generated with."""

    milliseconds: float
    token: Tensor  # [1, 1]
    cache: DRTCache
    memory: SavedMemory


def _ask_first(model: Any, folder: Path, tier: MemoryTier, seed: int) -> _First:
    """Open a memory and generate the first token behind a question."""
    device = model.device
    question = random_tokens(model.config, 1, QUESTION_TOKENS, seed).to(device)
    # the chunk before the question's last token closes, so the first new token is already served
    breaks = prompt_breaks(torch.ones_like(question, dtype=torch.bool)).to(device)
    wait_for(device)
    began = time.perf_counter()
    memory = open_memory(folder, tier)
    cache = DRTCache(model.config, memory=memory)
    logits = model(question, cache=cache, chunk_breaks=breaks, logits_to_keep=1).logits
    token: Tensor = logits[:, -1:].argmax(-1)
    wait_for(device)
    return _First((time.perf_counter() - began) * 1e3, token, cache, memory)


def _described(name: str, times: Sequence[float]) -> dict[str, float]:
    low, middle, high = (float(x) for x in np.percentile(times, [20, 50, 90]))
    return {f"{name}_ms": middle, f"{name}_p20_ms": low, f"{name}_p90_ms": high}


def _fetch_ms(cache: DRTCache, num_chunks: int, K: int, device: torch.device, seed: int) -> float:
    """Return the median time of bringing K chunks that have not been asked for."""
    generator = torch.Generator().manual_seed(seed)
    times = []
    for _ in range(FETCHES):
        indices = torch.randint(num_chunks, (1, 1, K), generator=generator).to(device)
        weights = torch.full((1, 1, K), 1 / K, device=device)
        wait_for(device)
        began = time.perf_counter()
        cache.memory.fetch(indices, weights)
        wait_for(device)
        times.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times))


def command(
    preset: Presets = None,
    lengths: Lengths = None,
    tiers: Annotated[
        str | None, typer.Option(help="Tiers, such as host,disk,recompute (default: all).")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, callback=countable, help="Tokens to time.")] = 192,
    opens: Annotated[
        int | None,
        typer.Option(
            min=1,
            callback=countable,
            help="Times that each memory is opened for its first token (default: by device).",
        ),
    ] = None,
    build_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            callback=countable,
            help="Tokens to read in the timed build (default: by device).",
        ),
    ] = None,
    full_attention: FullAttention = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder to write memories to (default: a temporary one).")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time saved memories: building, opening, asking, fetching, and the bytes that they take."""
    from benchmarks.tables import memory_table

    run = begin_model_run(
        preset, lengths, full_attention, device, out, on_gpu="64k,1m,4m", on_cpu="4k,16k"
    )
    all_tiers = _read_tiers(tiers)
    num_opens = opens or (OPENS_ON_GPU if run.on_gpu else OPENS_ON_CPU)
    reading = build_tokens or (2**22 if run.on_gpu else 2**14)

    def measure(
        config: DRTConfig, on_progress: Callable[[str], None], on_row: Keep
    ) -> dict[str, Any]:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            return bench_memory(
                config,
                run.lengths,
                run.device,
                run.dtype,
                tiers=all_tiers,
                folder=Path(place),
                num_tokens=tokens,
                num_opens=num_opens,
                build_tokens=reading,
                segment_length=min(reading, BLOCK_TOKENS["cuda"] if run.on_gpu else 2**12),
                with_full_attention=run.with_full_attention,
                seed=seed,
                on_progress=on_progress,
                on_row=on_row,
            )

    settings = run.settings() | {
        "tiers": all_tiers,
        "tokens": tokens,
        "opens": num_opens,
        "memories": "random chunks, written and opened again",
    }
    result = ResultFile("memory", settings, out=out, seed=seed, trials=tokens)
    result.finish(run.measure(measure, result), memory_table)


def _read_tiers(given: str | None) -> list[MemoryTier]:
    # those that share a folder follow each other
    known: list[MemoryTier] = list(get_args(MemoryTier))
    names = known if given is None else [name.strip() for name in given.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--tiers must be of {', '.join(known)}, got {', '.join(unknown)}.")
    return [tier for tier in known if tier in names]


if __name__ == "__main__":
    run_command(command, "benchmarks.memory")
