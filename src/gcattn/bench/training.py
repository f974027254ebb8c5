"""`gcattn bench train`: a whole training step beside that of a sliding-window Transformer.

A step is forward, backward, clipping and fused AdamW, in bfloat16 autocast over float32 weights, as
in `gcattn train`. Token ids are random. The Transformers that it is held against have the same
layers without retrieval, and as many layers more as the chunk encoder has ("+2 layers"), which is
what the encoder's layers cost. DRTs with fewer reading layers say what reading costs.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from gcattn.bench.operator import OUT_OF_MEMORY
from gcattn.bench.random_tokens import random_tokens
from gcattn.bench.timing import Timing, release_memory, wait_for
from gcattn.models import DRTConfig, DRTForCausalLM

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

    Returns:
        For each length and model: milliseconds per step, tokens per second, utilisation, peak
        memory; and how many times as long as each Transformer's a DRT's step takes.
    """
    models = compared_models(config, intervals)
    by_length: dict[str, Any] = {}
    for length in lengths:
        tokens = length - length % (config.chunk_size - 1)
        if tokens == 0:
            raise ValueError(
                f"A length must hold a chunk of {config.chunk_size - 1} tokens, got {length}."
            )
        rows = max(1, batch_tokens // length)
        measured = {}
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
        by_length[str(length)] = {
            "rows": rows,
            "tokens_per_row": tokens,
            "models": measured,
        }
    parameters = {name: variant.count_parameters() for name, variant in models.items()}
    return {"parameters": parameters, "lengths": by_length}


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
    batches = [random_tokens(config, *shape, device, seed + i) for i in range(4)]
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
            if "unavailable" not in measured[other]
        }
