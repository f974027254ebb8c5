"""`python -m benchmarks.devices`: training on one GPU and on all of them, by way of sharing.

Each way is a run of `gcattn train` as its users start it, on random tokens and with a time limit,
so that one that hangs costs no other its turn. The speed is that of the run's own log. All ways
have the rows of one forward pass for each GPU, so a step of N GPUs has N times the tokens.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
import yaml

from benchmarks.options import Batch, Device, Out, Seed, begin, read_presets
from benchmarks.report import ResultFile, progress_console
from benchmarks.tables import devices_table
from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.compare.runs import program
from gcattn.data import TokenShardWriter, load_tokenizer
from gcattn.train.run_log import LOG_FILE, read_log

WAYS = ("one", "ddp", "fsdp")
LOGGED_STEPS = 5
# records that compilation and the first use of every buffer slow down
WARMUP_RECORDS = 2


def measure(
    way: str,
    devices: int,
    training: dict[str, Any],
    seconds: float,
    changes: Sequence[str],
) -> dict[str, Any]:
    """Train for some steps in one way.

    Args:
        way: One of `WAYS`.
        devices: Processes of ways that share the work; on a GPU one each.
        training: A configuration of `gcattn train`.
        seconds: Time limit of the whole run.
        changes: More of the configuration, as `gcattn train` takes it.

    Returns:
        Devices, tokens per second (median, 20th and 80th percentile of the log's records after
        warm-up), and seconds to the end of the first step after the data were there; or
        `unavailable` with the reason.
    """
    processes = 1 if way == "one" else devices
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "run"
        file = Path(place) / "train.yaml"
        file.write_text(yaml.safe_dump(training | {"output": str(output)}), encoding="utf-8")
        sharded = ["training.fsdp=true"] if way == "fsdp" else []
        command = [*program(processes), "train", str(file), *changes, *sharded]
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=Path(__file__).parents[1],
            env=_environment(place, processes),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a launcher's processes end with it
        )
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return {"unavailable": f"took above {seconds:g} s"}
        if process.returncode:
            errors = [line for line in said.splitlines() if "rror: " in line]
            return {"unavailable": (errors or said.splitlines() or ["failed"])[0][:200]}
        records = [r for r in read_log(output / LOG_FILE) if r["kind"] == "train"]
    speeds = [record["tokens_per_second"] for record in records[WARMUP_RECORDS:]]
    return {
        "devices": processes,
        "tokens_per_second": median(speeds),
        "p20_tokens_per_second": float(np.percentile(speeds, 20)),
        "p80_tokens_per_second": float(np.percentile(speeds, 80)),
        "records": len(speeds),
        "first_step_s": records[0]["tokens"] / records[0]["tokens_per_second"],
        "last_loss": records[-1]["loss"],
    }


def command(
    preset: Annotated[str, typer.Option(help="Preset of the model.")] = "drt_128m",
    tokens: Annotated[
        int, typer.Option(min=2, callback=countable, help="Tokens per row.")
    ] = 16_380,
    batch: Batch = 4,
    steps: Annotated[int, typer.Option(min=20, callback=countable, help="Steps of a run.")] = 60,
    ways: Annotated[str, typer.Option(help="Ways, separated by commas.")] = ",".join(WAYS),
    devices: Annotated[
        int | None,
        typer.Option(min=2, help="Devices that share the work (default: all GPUs, or 2)."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="More of the configuration, such as training.compile=false."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit of each way.")] = 120.0,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = RESULTS,
) -> None:
    """Time training on one device and on several, with DDP and with FSDP2."""
    target = begin(device, out)
    wanted = [way.strip() for way in ways.split(",")]
    if unknown := [way for way in wanted if way not in WAYS]:
        raise ValueError(f"--ways knows {', '.join(WAYS)}; got {', '.join(unknown)}.")
    read_presets(preset, preset)
    on_gpu = target.type == "cuda"
    count = devices or (torch.cuda.device_count() if on_gpu else 2)
    if on_gpu and count > torch.cuda.device_count():
        raise ValueError(f"--devices {count}: this machine has {torch.cuda.device_count()} GPUs.")
    config = {"preset": preset, "tokens": tokens, "batch": batch, "steps": steps}
    config |= {"devices": count, "device": target.type, "set": set_ or []}
    console = progress_console()
    result = ResultFile("devices", config, out=out, seed=seed, trials=1)
    metrics: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        _write_random_tokens(Path(place) / "tokens", 2 * tokens * batch * count, seed)
        training = {
            "model": {"preset": preset},
            "data": {"train": str(Path(place) / "tokens"), "sequence_length": tokens},
            "training": {
                "steps": steps,
                "batch_size": batch,
                "learning_rate": 1e-3,
                "min_learning_rate": 1e-4,
                "compile": on_gpu,
                "eval_every": 0,
                "save_every": 0,
                "log_every": LOGGED_STEPS,
                "seed": seed,
            },
        }
        for way in wanted:
            console.print(way)
            began = time.perf_counter()
            row = measure(way, count, training, seconds, set_ or [])
            one = metrics.get("one", {}).get("tokens_per_second")
            if one and "tokens_per_second" in row:
                row["times_one"] = row["tokens_per_second"] / one
            metrics[way] = row | {"whole_s": time.perf_counter() - began}
            result.write(metrics)
    result.finish(metrics, devices_table, num_labels=1)


def _environment(place: str, processes: int) -> dict[str, str]:
    # an empty cache of the compiler for each way, or the first one would pay for all
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(Path(place) / "inductor")}
    if processes == 1 and torch.cuda.is_available():
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(
            ","
        )[0]
    return environment


def _write_random_tokens(folder: Path, num_tokens: int, seed: int) -> None:
    tokenizer, draw = load_tokenizer(), np.random.default_rng(seed)
    ids = draw.integers(2, tokenizer.vocab_size, num_tokens)
    with TokenShardWriter(folder, tokenizer, "random tokens") as writer:
        writer.append(ids, 4 * num_tokens)


if __name__ == "__main__":
    run_command(command, "benchmarks.devices")
