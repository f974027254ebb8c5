"""`gcattn bench`: what things cost, beside their peers, as result files and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gcattn.cli.bench_extremes import extremes
from gcattn.cli.bench_options import (
    Batch,
    Device,
    FullAttention,
    Lengths,
    Out,
    Presets,
    Seed,
    begin,
    check_memory,
    model_dtype,
    read_contestants,
    read_counts,
    read_length,
    read_lengths,
    read_presets,
)
from gcattn.cli.bench_report import fewest_repetitions, progress_console, report
from gcattn.cli.limits import MOST, check_room
from gcattn.cli.paths import RESULTS

bench_app = typer.Typer(
    no_args_is_help=True,
    help="Measure the operator, prefill, training steps and decoding beside their peers.",
)


@bench_app.command()
def op(
    lengths: Lengths = None,
    shapes: Annotated[
        Literal["lengths", "anchors", "all"],
        typer.Option(
            help="The given sizes at each length, three fixed shapes (short on a CPU), or both."
        ),
    ] = "lengths",
    batch: Batch = 1,
    heads: Annotated[int, typer.Option(min=1, max=MOST, help="Query heads.")] = 12,
    kv_heads: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Key/value heads (default: as query heads).")
    ] = None,
    head_dim: Annotated[int, typer.Option(min=1, max=MOST)] = 64,
    top_k: Annotated[int, typer.Option(min=1, max=MOST, help="Retrieved chunks.")] = 8,
    chunk_size: Annotated[int, typer.Option(min=2, max=MOST, help="Slots per chunk.")] = 64,
    window: Annotated[int, typer.Option(min=1, max=MOST, help="Of the sliding windows.")] = 512,
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16, float16 or float32 (default: by device).")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Comma-separated contestants (default: all).")
    ] = None,
    warmup_ms: Annotated[float, typer.Option(min=0)] = 25.0,
    measure_ms: Annotated[float, typer.Option(min=1, help="Least time measured.")] = 100.0,
    slowest_ms: Annotated[
        float, typer.Option(min=0, help="Whoever takes longer is not run on larger shapes.")
    ] = 5000.0,
    foreign_seconds: Annotated[
        float,
        typer.Option(min=0.1, help="Another project's contestant that takes longer is left out."),
    ] = 120.0,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time grouped cross-attention and its peers, after checking that they are right."""
    from gcattn.bench.costs import least_bytes
    from gcattn.bench.operator import bench_operator
    from gcattn.bench.plots import plot_anchors, plot_operator
    from gcattn.bench.shapes import OperatorShape, anchor_shapes, shapes_by_length
    from gcattn.bench.tables import operator_table
    from gcattn.results import write_result

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

    def save(metrics: dict[str, Any]) -> Path:
        trials = fewest_repetitions(metrics)
        return write_result("bench_op", config, metrics, folder=out, seed=seed, trials=trials)

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
        on_shape=save,
    )
    file = save(metrics)
    pictures = []
    if anchors:
        pictures.append(file.with_name("bench_op_anchors.png"))
        plot_anchors(metrics, len(anchors), pictures[-1])
    if series:
        pictures.append(file.with_suffix(".png"))
        plot_operator(metrics, all_lengths, pictures[-1])
    report(operator_table(metrics), file, *pictures, num_labels=2)
    if metrics["failures"]:
        console.print("\n".join(f"failed: {failure}" for failure in metrics["failures"]))
        raise typer.Exit(1)


@bench_app.command()
def model(
    preset: Presets = None,
    lengths: Lengths = None,
    batch: Batch = 1,
    segment_length: Annotated[
        str, typer.Option(help="Tokens read at a time, such as 16k; bounds memory.")
    ] = "16k",
    memory_tier: Annotated[
        Literal["device", "host"], typer.Option(help="Where old chunks are kept.")
    ] = "device",
    trials: Annotated[int, typer.Option(min=1, max=MOST, help="Readings of each prompt.")] = 3,
    full_attention: FullAttention = None,
    slowest_seconds: Annotated[
        float, typer.Option(min=0, help="Whoever takes longer gets no longer prompt.")
    ] = 10.0,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Measure prefill: tokens per second and memory by the length of the prompt."""
    from gcattn.bench.plots import plot_prefill
    from gcattn.bench.prefill import bench_prefill
    from gcattn.bench.tables import prefill_table
    from gcattn.results import write_result

    target = begin(device, out)
    on_gpu = target.type == "cuda"
    dtype = model_dtype(target)
    configs = read_presets(preset, "drt_128m" if on_gpu else "drt_tiny")
    all_lengths = read_lengths(
        lengths, "1k,2k,4k,8k,16k,32k,64k,128k,256k,512k,1m", "1k,4k", on_gpu
    )
    with_full = on_gpu if full_attention is None else full_attention
    segment = read_length("--segment-length", segment_length)
    check_memory(target, configs, batch * max(all_lengths))
    console = progress_console()
    metrics = {
        name: bench_prefill(
            config,
            all_lengths,
            target,
            dtype,
            batch=batch,
            segment_length=segment,
            memory_tier=memory_tier,
            trials=trials,
            with_full_attention=with_full,
            slowest_seconds=slowest_seconds,
            seed=seed,
            on_progress=console.print,
        )
        for name, config in configs.items()
    }
    config = {
        "presets": list(configs),
        "lengths": all_lengths,
        "batch": batch,
        "segment_length": segment,
        "memory_tier": memory_tier,
        "dtype": str(dtype).removeprefix("torch."),
        "device": target.type,
        "data": "random token ids",
    }
    file = write_result("bench_model", config, metrics, folder=out, seed=seed, trials=trials)
    plot_prefill(metrics, file.with_suffix(".png"))
    report(prefill_table(metrics), file, file.with_suffix(".png"), num_labels=3)


@bench_app.command()
def train(
    preset: Presets = None,
    lengths: Lengths = None,
    batch_tokens: Annotated[
        str | None, typer.Option(help="Tokens of a step, such as 64k (default: by device).")
    ] = None,
    intervals: Annotated[
        str | None,
        typer.Option(
            help="Upper layers from one that reads to the next: each number is a DRT of its own "
            "(default: the preset's)."
        ),
    ] = None,
    compile_model: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Default: on a GPU.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=MOST, help="Timed steps.")] = 20,
    warmup: Annotated[int, typer.Option(min=1, max=MOST, help="Steps before them.")] = 5,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time whole training steps beside sliding-window Transformers of the same size."""
    import torch

    from gcattn.bench.ceilings import measure_ceilings
    from gcattn.bench.plots import plot_training
    from gcattn.bench.tables import training_table
    from gcattn.bench.training import bench_training
    from gcattn.results import write_result

    target = begin(device, out)
    on_gpu = target.type == "cuda"
    configs = read_presets(preset, "drt_34m,drt_128m" if on_gpu else "drt_tiny")
    all_lengths = read_lengths(lengths, "16k", "1k", on_gpu)
    per_step = read_length("--batch-tokens", batch_tokens or ("64k" if on_gpu else "2k"))
    read_every = None if intervals is None else read_counts("--intervals", intervals)
    compiles = on_gpu if compile_model is None else compile_model
    check_memory(target, configs, max(per_step, *all_lengths))
    console = progress_console()
    console.print("ceilings of the device")
    ceilings = measure_ceilings(target, torch.bfloat16 if on_gpu else torch.float32)
    metrics: dict[str, Any] = {
        "measured_matmul_tflop_per_s": ceilings.flops_per_second / 1e12,
        "presets": {
            name: bench_training(
                config,
                all_lengths,
                target,
                batch_tokens=per_step,
                intervals=read_every,
                compile_model=compiles,
                steps=steps,
                warmup=warmup,
                matmul_flops=ceilings.flops_per_second,
                seed=seed,
                on_progress=console.print,
            )
            for name, config in configs.items()
        },
    }
    config = {
        "presets": list(configs),
        "lengths": all_lengths,
        "batch_tokens": per_step,
        "intervals": read_every,
        "compile": compiles,
        "steps": steps,
        "warmup": warmup,
        "precision": "bfloat16 autocast, float32 weights" if on_gpu else "float32",
        "optimizer": "fused AdamW, gradients clipped",
        "data": "random token ids",
        "device": target.type,
    }
    file = write_result("bench_train", config, metrics, folder=out, seed=seed, trials=steps)
    plot_training(metrics, file.with_suffix(".png"))
    report(training_table(metrics), file, file.with_suffix(".png"), num_labels=3)


@bench_app.command()
def decode(
    preset: Presets = None,
    lengths: Lengths = None,
    batch: Batch = 1,
    tokens: Annotated[int, typer.Option(min=2, max=MOST, help="Timed tokens.")] = 192,
    full_attention: FullAttention = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time a generated token behind long contexts, with memory on the device and on the host."""
    from gcattn.bench.decoding import bench_decoding
    from gcattn.bench.plots import plot_decoding
    from gcattn.bench.tables import decoding_table
    from gcattn.results import write_result

    target = begin(device, out)
    on_gpu = target.type == "cuda"
    dtype = model_dtype(target)
    configs = read_presets(preset, "drt_128m" if on_gpu else "drt_tiny")
    all_lengths = read_lengths(lengths, "1k,4k,16k,64k,256k,1m", "1k,16k", on_gpu)
    with_full = on_gpu if full_attention is None else full_attention
    check_memory(target, configs, batch * max(all_lengths) + batch * tokens)
    console = progress_console()
    metrics = {
        name: bench_decoding(
            config,
            all_lengths,
            target,
            dtype,
            batch=batch,
            num_tokens=tokens,
            with_full_attention=with_full,
            seed=seed,
            on_progress=console.print,
        )
        for name, config in configs.items()
    }
    config = {
        "presets": list(configs),
        "lengths": all_lengths,
        "batch": batch,
        "tokens": tokens,
        "dtype": str(dtype).removeprefix("torch."),
        "device": target.type,
        "contexts": "random chunks put into the memory; random keys and values of full attention",
    }
    file = write_result("bench_decode", config, metrics, folder=out, seed=seed, trials=tokens)
    plot_decoding(metrics, file.with_suffix(".png"))
    report(decoding_table(metrics), file, file.with_suffix(".png"), num_labels=3)


bench_app.command()(extremes)
