"""`gcattn bench extremes`: the operators where no training row takes them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gcattn.cli.bench_options import Device, Out, Seed, begin, read_length, read_lengths
from gcattn.cli.bench_report import progress_console, report
from gcattn.cli.limits import MOST, check_room
from gcattn.cli.paths import RESULTS


def extremes(
    landmarks: Annotated[
        str | None, typer.Option(help="Chunks in a scanned memory, such as 1m,16m.")
    ] = None,
    hidden_size: Annotated[int, typer.Option(min=1, max=MOST, help="Of the landmarks.")] = 768,
    length: Annotated[
        str | None, typer.Option(help="Columns of the rows whose readers crowd.")
    ] = None,
    measure_ms: Annotated[float, typer.Option(min=1, help="Least time measured.")] = 100.0,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time the operators at a huge memory, at few queries and where readers crowd."""
    from gcattn.bench.ceilings import measure_ceilings
    from gcattn.bench.costs import least_bytes
    from gcattn.bench.extremes import bench_extremes
    from gcattn.bench.shapes import OperatorShape
    from gcattn.bench.tables import extremes_table
    from gcattn.results import write_result

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
    )
    metrics["copy_tb_per_s"] = ceilings.bytes_per_second / 1e12
    trials = min(row["repetitions"] for row in metrics["scan"] if "repetitions" in row)
    file = write_result("bench_extremes", config, metrics, folder=out, seed=seed, trials=trials)
    report(extremes_table(metrics), file, num_labels=2)
