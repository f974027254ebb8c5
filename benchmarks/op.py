"""`python -m benchmarks.op`: grouped cross-attention beside its peers, by length and shape."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from benchmarks.options import (
    Batch,
    Device,
    Lengths,
    Out,
    Seed,
    begin,
    check_room,
    read_contestants,
    read_lengths,
)
from benchmarks.report import ResultFile, fewest_repetitions, progress_console, report
from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command


def command(
    lengths: Lengths = None,
    shapes: Annotated[
        Literal["lengths", "anchors", "all"],
        typer.Option(
            help="lengths: the sizes below at each length; anchors: three fixed shapes, short on "
            "a CPU; all: both."
        ),
    ] = "lengths",
    batch: Batch = 1,
    heads: Annotated[int, typer.Option(min=1, callback=countable, help="Query heads.")] = 12,
    kv_heads: Annotated[
        int | None,
        typer.Option(
            min=1, callback=countable, help="Key/value heads (default: as many as query heads)."
        ),
    ] = None,
    head_dim: Annotated[int, typer.Option(min=1, callback=countable, help="Size of a head.")] = 64,
    top_k: Annotated[int, typer.Option(min=1, callback=countable, help="Retrieved chunks.")] = 8,
    chunk_size: Annotated[
        int, typer.Option(min=2, callback=countable, help="Slots per chunk.")
    ] = 64,
    window: Annotated[
        int, typer.Option(min=1, callback=countable, help="Keys in a sliding window.")
    ] = 512,
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16, float16 or float32 (default: by device).")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Contestants, separated by commas (default: all).")
    ] = None,
    warmup_ms: Annotated[float, typer.Option(min=0, help="Warm-up, in milliseconds.")] = 25.0,
    measure_ms: Annotated[
        float, typer.Option(min=1, help="Minimum time measured, in milliseconds.")
    ] = 100.0,
    slowest_ms: Annotated[
        float,
        typer.Option(
            min=0, help="Contestants slower than this, in milliseconds, skip larger shapes."
        ),
    ] = 5000.0,
    foreign_seconds: Annotated[
        float,
        typer.Option(
            min=0.1, help="Time limit for contestants from other projects, compilation included."
        ),
    ] = 120.0,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time grouped cross-attention and its peers, after checking their results."""
    from benchmarks.costs import least_bytes
    from benchmarks.op_timing import bench_operator
    from benchmarks.plots import plot_anchors, plot_operator
    from benchmarks.shapes import OperatorShape, anchor_shapes, shapes_by_length
    from benchmarks.tables import operator_table

    target = begin(device, out)
    on_gpu = target.type == "cuda"
    dtype = dtype or ("bfloat16" if on_gpu else "float32")
    all_lengths = read_lengths(
        lengths, "1k,2k,4k,8k,16k,32k,64k,128k,256k,512k,1m", "256,512", on_gpu
    )
    taking_part = read_contestants(only)
    anchors = anchor_shapes(dtype, length=16_384 if on_gpu else 256) if shapes != "lengths" else []
    series = []
    if shapes != "anchors":
        first = OperatorShape(
            batch=batch,
            length=all_lengths[0],
            heads=heads,
            kv_heads=heads if kv_heads is None else kv_heads,
            head_dim=head_dim,
            top_k=top_k,
            chunk_size=chunk_size,
            window=window,
            dtype=dtype,
        )
        series = shapes_by_length(first, all_lengths)
    for shape in (*anchors, *series):
        check_room(target, least_bytes(shape, backward=False), shape.label())
    console = progress_console()
    config = {
        "shapes": [shape.as_dict() for shape in (*anchors, *series)],
        "contestants": [c.name for c in taking_part],
        "device": target.type,
        "warmup_ms": warmup_ms,
        "measure_ms": measure_ms,
        "slowest_ms": slowest_ms,
        "foreign_seconds": foreign_seconds,
    }

    result = ResultFile("operator", config, out=out, seed=seed, trials=fewest_repetitions)
    metrics = bench_operator(
        [*anchors, *series],
        taking_part,
        target,
        seed=seed,
        warmup_ms=warmup_ms,
        measure_ms=measure_ms,
        slowest_ms=slowest_ms,
        foreign_seconds=foreign_seconds,
        on_progress=console.print,
        on_shape=result.write,
    )
    file = result.write(metrics)
    pictures = []
    if anchors:
        pictures.append(file.with_name("operator_shapes.png"))
        plot_anchors(metrics, len(anchors), pictures[-1])
    if series:
        pictures.append(file.with_suffix(".png"))
        plot_operator(metrics, all_lengths, pictures[-1])
    report(operator_table(metrics), file, *pictures, num_labels=2)
    if metrics["failures"]:
        console.print("\n".join(f"failed: {failure}" for failure in metrics["failures"]))
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(command, "benchmarks.op")
