"""`python -m benchmarks.compile`: the first training step and the speed, by way of compilation.

Each way runs in a process of its own, with an empty cache of the compiler and a time limit, so that
one that hangs costs no other its turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from benchmarks.options import Batch, Device, Out, Seed, begin, read_presets
from benchmarks.report import ResultFile, progress_console
from benchmarks.tables import compilation_table
from benchmarks.timing import wait_for
from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.models import DRTForCausalLM
from gcattn.testing import random_tokens
from gcattn.train.compilation import compile_layers

WAYS = ("not compiled", "by layer", "by layer, changing shapes", "whole model")
WARMUP, MOST_STEPS, MOST_SECONDS = 4, 30, 6.0


def measure(
    way: str, preset: str, shape: tuple[int, int], device: torch.device, seed: int
) -> dict[str, Any]:
    """Time the first steps of a model that is compiled in one way, and an evaluation after them.

    Args:
        way: One of `WAYS`.
        preset: Of the model.
        shape: Rows and tokens of each.
        device: CPU or CUDA.
        seed: Of weights and tokens.

    Returns:
        Seconds of the first and second step and of the first evaluation, milliseconds and tokens
        per second of later steps, how many graphs were compiled, and the peak memory.
    """
    from torch._dynamo.utils import counters

    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    on_gpu = device.type == "cuda"
    counters.clear()
    config = read_presets(preset, preset)[preset]
    # a method of PreTrainedModel hides its type
    model: Any = DRTForCausalLM(config).train()
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=on_gpu)
    ids = random_tokens(config, *shape, seed).to(device)
    call: Callable[..., Any] = model
    if way.startswith("by layer"):
        compile_layers(model, **({"dynamic": True} if "changing" in way else {}))
    elif way == "whole model":
        call = torch.compile(model)

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=on_gpu):
            loss = call(input_ids=ids, labels=ids, use_cache=False, return_logits=False).loss
        return loss

    def step() -> None:
        forward().backward()
        optimizer.step()
        optimizer.zero_grad()

    def seconds(function: Callable[[], object]) -> float:
        wait_for(device)
        began = time.perf_counter()
        function()
        wait_for(device)
        return time.perf_counter() - began

    first, second = seconds(step), seconds(step)
    for _ in range(WARMUP):
        step()
    times: list[float] = []
    while len(times) < MOST_STEPS and sum(times) < MOST_SECONDS:
        times.append(seconds(step))
    graphs = counters["stats"]["unique_graphs"]
    model.eval()
    evaluation = seconds(lambda: forward().detach())
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else None
    return {
        "first_step_seconds": first,
        "second_step_seconds": second,
        "first_evaluation_seconds": evaluation,
        "median_ms": median(times) * 1e3,
        "tokens_per_second": shape[0] * shape[1] / median(times),
        "graphs": graphs,
        "graphs_of_evaluation": counters["stats"]["unique_graphs"] - graphs,
        "graph_breaks": sum(counters["graph_break"].values()),
        "peak_mib": peak,
    }


def command(
    preset: Annotated[str, typer.Option(help="Preset of the model.")] = "drt_128m",
    tokens: Annotated[
        int, typer.Option(min=1, callback=countable, help="Tokens per row.")
    ] = 16_380,
    batch: Batch = 1,
    ways: Annotated[
        str, typer.Option(help="Ways to compile, separated by semicolons.")
    ] = "; ".join(WAYS),
    seconds: Annotated[float, typer.Option(min=1, help="Time limit of each way.")] = 60.0,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Time the first step, later steps and an evaluation for each way to compile a model."""
    target = begin(device, out)
    if one is not None:
        print(json.dumps(measure(one, preset, (batch, tokens), target, seed)))
        return
    wanted = [way.strip() for way in ways.split(";")]
    if unknown := [way for way in wanted if way not in WAYS]:
        raise ValueError(f"--ways knows {'; '.join(WAYS)}; got {'; '.join(unknown)}.")
    read_presets(preset, preset)
    console = progress_console()
    config = {"preset": preset, "tokens": tokens, "batch": batch, "device": target.type}
    result = ResultFile("compilation", config, out=out, seed=seed, trials=1)
    metrics: dict[str, Any] = {}
    for way in wanted:
        console.print(way)
        options = {"preset": preset, "tokens": tokens, "batch": batch, "seed": seed}
        options |= {"device": target.type, "one": way}
        metrics[way] = _in_a_process(options, seconds)
        result.write(metrics)
    result.finish(metrics, compilation_table, num_labels=1)


def _in_a_process(options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return what a way measured in a process of its own, or why it did not."""
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.compile", *arguments],
                cwd=Path(__file__).parents[1],
                capture_output=True,
                text=True,
                timeout=seconds,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return {"unavailable": f"took above {seconds:g} s"}
    if done.returncode:
        return {"unavailable": (done.stderr.splitlines() or ["failed"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    run_command(command, "benchmarks.compile")
