"""`python -m benchmarks.extremes`: shapes that no training row has.

Each is timed beside what it must be held to:

* scan: a search through a whole memory, beside the time that reading its landmarks once takes;
* few queries: the slots of one decoded chunk, with the pool on the device and in pinned host
  memory, beside copying the retrieved chunks together first;
* popularity: forward and backward where all queries read the same few chunks, beside chunks read
  uniformly; the second share their work as evenly as can be.

Letters: N chunks in the memory, E hidden size, C querying chunks, M query slots, K retrieved
chunks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks.ceilings import measure_ceilings
from benchmarks.contestants import contestants, ours
from benchmarks.costs import least_bytes
from benchmarks.gate import check_contestant, gate_shape
from benchmarks.inputs import OperatorInputs, random_inputs
from benchmarks.op_timing import OUT_OF_MEMORY
from benchmarks.options import Device, Out, Seed, begin, check_room, read_length, read_lengths
from benchmarks.report import Keep, ResultFile, progress_console
from benchmarks.shapes import OperatorShape
from benchmarks.timing import peak_extra_mib, release_memory, time_call
from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.ops import grouped_cross_attention
from gcattn.ops.chunk_topk import chunk_topk

# landmarks drawn at a time
DRAWN = 2**18
READERS = ("uniform", "the same 8 chunks", "one chunk by all, 7 uniform")


def bench_extremes(
    shape: OperatorShape,
    device: torch.device,
    *,
    num_landmarks: Sequence[int],
    hidden_size: int,
    num_queries: Sequence[int],
    slots: Sequence[int],
    pool_chunks: int,
    copy_bytes_per_second: float,
    seed: int = 0,
    measure_ms: float = 100.0,
    on_progress: Callable[[str], None] = lambda _: None,
    on_row: Keep = lambda _: None,
) -> dict[str, Any]:
    """Check the operator, then measure the three.

    Args:
        shape: Heads, sizes and dtype of all; its length is that of the popularity rows.
        device: CPU or CUDA.
        num_landmarks: N of each scan.
        hidden_size: E of the landmarks.
        num_queries: C of each scan.
        slots: M of each read.
        pool_chunks: Chunks in the pool that few queries read from.
        copy_bytes_per_second: What the device reaches in a large copy, read and written bytes.
        seed: Of all random numbers.
        measure_ms: See `time_call`.
        on_progress: Told what begins.
        on_row: Given the result so far after every row.

    Raises:
        RedGateError: The operator is wrong; nothing has been measured then.
    """
    on_progress("checking gcattn")
    check_contestant(contestants()[0], gate_shape(shape), device, seed + 1)
    timed = partial(time_call, device=device, measure_ms=measure_ms)
    scans: list[dict[str, Any]] = []
    reads: list[dict[str, Any]] = []
    popularity: list[dict[str, Any]] = []
    metrics = {"scan": scans, "few_queries": reads, "popularity": popularity}
    for count in num_landmarks:
        for queries in num_queries:
            on_progress(f"scan: {queries} queries, {count:,} landmarks")
            row: dict[str, Any] = {"landmarks": count, "queries": queries}
            call = None
            try:
                call = _scan(shape, device, count, hidden_size, queries, seed)
                num_bytes = count * hidden_size * shape.torch_dtype.itemsize
                row |= timed(call).as_dict() | {"read_ms": 1e3 * num_bytes / copy_bytes_per_second}
                row["peak_mib"] = peak_extra_mib(call, device)
            except torch.OutOfMemoryError:
                row["unavailable"] = OUT_OF_MEMORY
            del call
            release_memory(device)
            scans.append(row)
            on_row(metrics)
    pools = _pools(shape, device, pool_chunks, seed)
    for where, (k, v) in pools.items():
        for count in slots:
            on_progress(f"few queries: {count} slots, pool on the {where}")
            calls = _reads(shape, device, k, v, count, seed)
            times = {name: timed(call).as_dict() for name, call in calls.items()}
            reads.append({"pool": where, "slots": count, "ways": times})
            on_row(metrics)
    del pools, k, v, calls
    release_memory(device)
    for name in READERS:
        on_progress(f"popularity: {name}")
        inputs = with_readers(random_inputs(shape, device, seed), name)
        prepared = ours("auto")(inputs)
        leaves = list(prepared.leaves.values())

        def both(run: Any = prepared.run, by: Any = leaves, dout: Tensor = inputs.dout) -> object:
            return torch.autograd.grad(run(), by, dout)

        with torch.no_grad():
            forward = timed(prepared.run).as_dict()
        popularity.append(
            {"readers": name, "forward": forward, "forward_backward": timed(both).as_dict()}
        )
        on_row(metrics)
    return metrics


def _scan(
    shape: OperatorShape,
    device: torch.device,
    num_landmarks: int,
    hidden_size: int,
    num_queries: int,
    seed: int,
) -> Callable[[], object]:
    generator = torch.Generator(device).manual_seed(seed)

    def normal(out: Tensor) -> Tensor:
        for piece in out.split(DRAWN, dim=1):
            piece.normal_(generator=generator)
        return out

    landmarks, queries = (
        normal(torch.empty(1, n, hidden_size, dtype=shape.torch_dtype, device=device))
        for n in (num_landmarks, num_queries)
    )
    visible = torch.full((1, num_queries), num_landmarks, device=device)

    @torch.inference_mode()
    def call() -> object:
        return chunk_topk(queries, landmarks, visible, shape.top_k)

    return call


def _pools(
    shape: OperatorShape, device: torch.device, num_chunks: int, seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator(device).manual_seed(seed)
    sizes = (1, num_chunks, shape.chunk_size, shape.kv_heads, shape.head_dim)
    pool = [
        torch.randn(sizes, generator=generator, device=device, dtype=shape.torch_dtype)
        for _ in range(2)
    ]
    pools = {"device": (pool[0], pool[1])}
    if device.type == "cuda":
        pools["host, pinned"] = (pool[0].cpu().pin_memory(), pool[1].cpu().pin_memory())
    return pools


def _reads(
    shape: OperatorShape, device: torch.device, k: Tensor, v: Tensor, slots: int, seed: int
) -> dict[str, Callable[[], object]]:
    """Return the ways to read K chunks with M slots: in place, or copied together first."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(k.shape[1], generator=generator)[: shape.top_k]
    sizes = (1, 1, slots, shape.heads, shape.head_dim)
    q = torch.randn(sizes, generator=generator).to(device, shape.torch_dtype)
    weights = torch.rand(1, 1, shape.top_k, generator=generator).to(device)
    indices = chosen.to(device)[None, None]
    rows = torch.arange(shape.top_k, device=device)[None, None]
    place = chosen.to(k.device)

    @torch.inference_mode()
    def in_place() -> object:
        return grouped_cross_attention(q, k, v, indices, weights)

    @torch.inference_mode()
    def gathered() -> object:
        keys, values = (x[:, place].to(device, non_blocking=True) for x in (k, v))
        return grouped_cross_attention(q, keys, values, rows, weights)

    return {"in place": in_place, "gathered first": gathered}


def with_readers(inputs: OperatorInputs, name: str) -> OperatorInputs:
    """Let every chunk read what the name says, as far as it lies before it."""
    if name == READERS[0]:
        return inputs
    indices = inputs.chunk_indices
    C, K = indices.shape[1:]
    if name == READERS[1]:
        popular = torch.arange(K, device=indices.device).expand_as(indices)
    else:
        first = torch.zeros_like(indices[..., :1])
        rest = torch.where(indices[..., 1:] == 0, -1, indices[..., 1:])
        popular = torch.cat([first, rest], dim=-1)
    own = torch.arange(C, device=indices.device)[:, None]
    return replace(inputs, chunk_indices=torch.where(popular < own, popular, -1))


def command(
    landmarks: Annotated[
        str | None,
        typer.Option(help="Chunks in the scanned memory, such as 1m,16m (default: by device)."),
    ] = None,
    hidden_size: Annotated[
        int, typer.Option(min=1, callback=countable, help="Size of a landmark.")
    ] = 768,
    length: Annotated[
        str | None,
        typer.Option(
            help="Columns of rows in which few chunks have all readers (default: by device)."
        ),
    ] = None,
    measure_ms: Annotated[
        float, typer.Option(min=1, help="Minimum time measured, in milliseconds.")
    ] = 100.0,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time the operators on a huge memory, with few queries, and with many readers of a chunk."""
    from benchmarks.tables import extremes_table

    target = begin(device, out)
    on_gpu = target.type == "cuda"
    sizes: dict[str, Any] = {} if on_gpu else {"heads": 2, "kv_heads": 2, "head_dim": 32}
    shape = OperatorShape(
        length=read_length("--length", length or ("16k" if on_gpu else "2k")),
        dtype="bfloat16" if on_gpu else "float32",
        **sizes,
    )
    counts = read_lengths(landmarks, "1m,4m,16m", "16k", on_gpu)
    check_room(target, least_bytes(shape, backward=False), shape.label())
    check_room(target, max(counts) * hidden_size * shape.torch_dtype.itemsize, "The landmarks")
    console = progress_console()
    console.print("ceilings of the device")
    ceilings = measure_ceilings(target, shape.torch_dtype)
    config: dict[str, Any] = {
        "shape": shape.as_dict(),
        "num_landmarks": counts,
        "hidden_size": hidden_size,
        "num_queries": [1, 64, 256] if on_gpu else [1, 64],
        "slots": [1, 2, 4, 8],
        "pool_chunks": 16_384 if on_gpu else 256,
        "measure_ms": measure_ms,
        "device": target.type,
    }
    copied = {"copy_tb_per_s": ceilings.bytes_per_second / 1e12}
    result = ResultFile("extremes", config, out=out, seed=seed, trials=_fewest_scans)
    metrics = bench_extremes(
        shape,
        target,
        num_landmarks=counts,
        hidden_size=hidden_size,
        num_queries=config["num_queries"],
        slots=config["slots"],
        pool_chunks=config["pool_chunks"],
        copy_bytes_per_second=ceilings.bytes_per_second,
        seed=seed,
        measure_ms=measure_ms,
        on_progress=console.print,
        on_row=lambda rows: result.write(rows | copied),
    )
    result.finish(metrics | copied, extremes_table, num_labels=2)


def _fewest_scans(metrics: dict[str, Any]) -> int:
    """Return the smallest number of repetitions behind the time of a scan."""
    counts = [row["repetitions"] for row in metrics["scan"] if "repetitions" in row]
    return min(counts, default=0)


if __name__ == "__main__":
    run_command(command, "benchmarks.extremes")
