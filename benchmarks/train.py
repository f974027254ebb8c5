"""`python -m benchmarks.train`: a whole training step beside that of a sliding-window Transformer.

A step is forward, backward, clipping and fused AdamW, in bfloat16 autocast over float32 weights, as
in `gcattn train`. Token ids are random. The Transformers that it is held against have the same
layers without retrieval, and as many layers more as the chunk encoder has ("+2 layers"), which is
what the encoder's layers cost. DRTs with fewer reading layers say what reading costs.
"""

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
import typer
from torch import nn

from benchmarks.ceilings import measure_ceilings
from benchmarks.op_timing import OUT_OF_MEMORY
from benchmarks.options import (
    Device,
    Lengths,
    Out,
    Presets,
    Seed,
    begin,
    check_memory,
    read_counts,
    read_length,
    read_lengths,
    read_presets,
)
from benchmarks.report import Keep, ResultFile, progress_console
from benchmarks.timing import Timing, release_memory, wait_for
from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.models import DRTConfig, DRTForCausalLM
from gcattn.testing import random_tokens

# dense bfloat16 of NVIDIA's data sheet for H100 SXM and H200, without sparsity
DATA_SHEET_FLOPS = {"H100": 989e12, "H200": 989e12}
LEARNING_RATE, BETAS, WEIGHT_DECAY, MAX_GRAD_NORM = 2e-3, (0.9, 0.95), 0.1, 1.0


def bench_training(
    config: DRTConfig,
    lengths: Sequence[int],
    device: torch.device,
    *,
    batch_tokens: int,
    intervals: Sequence[int] | None = None,
    compile_model: bool = True,
    steps: int = 20,
    warmup: int = 5,
    matmul_flops: float | None = None,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
    on_row: Keep = lambda _: None,
) -> dict[str, Any]:
    """Time training steps of a DRT and of the Transformers that it is held against.

    Args:
        config: Of the DRT.
        lengths: Row lengths in tokens; rows are cut to whole chunks.
        device: CPU or CUDA.
        batch_tokens: Tokens of a step; a length above it makes steps of one row.
        intervals: `cross_attention_interval` of the DRTs that are timed; the configuration's own
            without it.
        compile_model: Compile the model with torch.compile.
        steps: Timed steps.
        warmup: Steps before them; the first one compiles.
        matmul_flops: Operations per second of a large product, for the utilisation.
        seed: Of weights and tokens.
        on_progress: Told what begins.
        on_row: Given the result so far after every row.

    Returns:
        For each length and model: milliseconds per step, tokens per second, utilisation, peak
        memory; and how many times as long as each Transformer's a DRT's step takes.
    """
    models = compared_models(config, intervals)
    by_length: dict[str, Any] = {}
    parameters = {name: variant.count_parameters() for name, variant in models.items()}
    result = {"parameters": parameters, "lengths": by_length}
    for length in lengths:
        tokens = length - length % (config.chunk_size - 1)
        if tokens == 0:
            raise ValueError(
                f"A length must hold a chunk of {config.chunk_size - 1} tokens, got {length}."
            )
        rows = max(1, batch_tokens // length)
        measured: dict[str, dict[str, Any]] = {}
        by_length[str(length)] = {"rows": rows, "tokens_per_row": tokens, "models": measured}
        for name, variant in models.items():
            on_progress(f"{name}: steps of {rows} x {tokens:,} tokens")
            try:
                measured[name] = _time_steps(
                    variant, (rows, tokens), device, compile_model, steps, warmup, seed
                )
            except torch.OutOfMemoryError:
                measured[name] = {"unavailable": OUT_OF_MEMORY}
            if compile_model:
                # compiled code keeps hold of the model, and counts against later recompilations
                torch.compiler.reset()
            release_memory(device)
            _add_utilization(measured[name], variant, device, matmul_flops)
            _add_ratios(measured, models)
            on_row(result)
    return result


def compared_models(
    config: DRTConfig, intervals: Sequence[int] | None = None
) -> dict[str, DRTConfig]:
    """Return the DRTs, the same layers without retrieval, and those with the encoder's on top."""

    def changed(**fields: Any) -> DRTConfig:
        fields = config.to_diff_dict() | fields
        return DRTConfig(**{k: v for k, v in fields.items() if k in DRTConfig.__annotations__})

    def without_retrieval(more_layers: int) -> DRTConfig:
        return changed(
            retrieval_method="none",
            num_retrieval_groups=1,
            num_lower_layers=config.num_lower_layers + more_layers - more_layers // 2,
            num_upper_layers=config.num_upper_layers + more_layers // 2,
        )

    drts = {}
    for interval in intervals or (config.cross_attention_interval,):
        drt = changed(cross_attention_interval=interval)
        drts[f"drt, {drt.num_reading_layers} of {drt.num_upper_layers} layers read"] = drt
    more = config.num_encoder_layers
    return drts | {
        "sliding window": without_retrieval(0),
        f"sliding window, +{more} layers": without_retrieval(more),
    }


def _time_steps(
    config: DRTConfig,
    shape: tuple[int, int],
    device: torch.device,
    compile_model: bool,
    steps: int,
    warmup: int,
    seed: int,
) -> dict[str, Any]:
    torch.manual_seed(seed)
    # a method of PreTrainedModel hides its type
    model: Any = DRTForCausalLM(config).train()
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    runs: Callable[..., Any] = torch.compile(model) if compile_model else model
    batches = [random_tokens(config, *shape, seed + i).to(device) for i in range(4)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def step(number: int) -> None:
        tokens = batches[number % len(batches)]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = runs(tokens, labels=tokens, use_cache=False, return_logits=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for number in range(warmup):
        step(number)
    timing = Timing.of(_step_milliseconds(step, steps, device))
    row = timing.as_dict() | {"tokens_per_second": shape[0] * shape[1] / timing.median_ms * 1e3}
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return row | {"peak_mib": peak}


def _step_milliseconds(
    step: Callable[[int], None], steps: int, device: torch.device
) -> list[float]:
    """Time steps that follow each other; on a GPU the host may run ahead, as in training."""
    wait_for(device)
    if device.type == "cuda":
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
        marks[0].record()
        for number in range(steps):
            step(number)
            marks[number + 1].record()
        torch.cuda.synchronize(device)
        return [marks[i].elapsed_time(marks[i + 1]) for i in range(steps)]
    times = []
    for number in range(steps):
        began = time.perf_counter()
        step(number)
        times.append((time.perf_counter() - began) * 1e3)
    return times


def _add_utilization(
    row: dict[str, Any], config: DRTConfig, device: torch.device, matmul_flops: float | None
) -> None:
    """Add the share of the device's operations per second that the model's own ones make up."""
    if "unavailable" in row:
        return
    used = config.flops_per_token(training=True) * row["tokens_per_second"]
    row["tflop_per_s"] = used / 1e12
    sheet = None
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        sheet = next((flops for gpu, flops in DATA_SHEET_FLOPS.items() if gpu in name), None)
    row["mfu_of_data_sheet"] = None if sheet is None else used / sheet
    row["mfu_of_measured_matmul"] = None if matmul_flops is None else used / matmul_flops


def _add_ratios(measured: dict[str, dict[str, Any]], models: dict[str, DRTConfig]) -> None:
    """Add to every DRT how many times as long as each Transformer's its step takes."""
    others = [name for name, config in models.items() if config.retrieval_method == "none"]
    for name, row in measured.items():
        if name in others or "unavailable" in row:
            continue
        row["step_time_over"] = {
            other: row["median_ms"] / measured[other]["median_ms"]
            for other in others
            if "median_ms" in measured.get(other, {})
        }


def command(
    preset: Presets = None,
    lengths: Lengths = None,
    batch_tokens: Annotated[
        str | None, typer.Option(help="Tokens per step, such as 64k (default: by device).")
    ] = None,
    intervals: Annotated[
        str | None,
        typer.Option(
            help="Every n-th upper layer reads: one DRT for each n, such as 6,1 "
            "(default: the preset's)."
        ),
    ] = None,
    compile_model: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile the models (default: on a GPU)."),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, callback=countable, help="Steps to time.")] = 20,
    warmup: Annotated[int, typer.Option(min=1, callback=countable, help="Steps before those.")] = 5,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time training steps of DRTs and of sliding-window Transformers of the same size."""
    from benchmarks.plots import plot_training
    from benchmarks.tables import training_table

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
    settings = {
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
    result = ResultFile("training_steps", settings, out=out, seed=seed, trials=steps)
    measured: dict[str, Any] = {}
    metrics = {
        "measured_matmul_tflop_per_s": ceilings.flops_per_second / 1e12,
        "presets": measured,
    }
    for name, config in configs.items():

        def keep(rows: dict[str, Any], name: str = name) -> None:
            measured[name] = rows
            result.write(metrics)

        bench_training(
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
            on_row=keep,
        )
    result.finish(metrics, training_table, plot_training)


if __name__ == "__main__":
    run_command(command, "benchmarks.train")
