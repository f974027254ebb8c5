"""Train and evaluate the runs of a suite side by side on the GPUs; what is finished is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from gcattn.compare.suite import Run, Suite, training_config
from gcattn.train.config import TrainConfig

EVALUATION_FILE = "evaluation.json"


def train_and_evaluate(suite: Suite, run: Run, runs_folder: Path) -> dict[str, Any]:
    """Train one model, or continue with it, and evaluate it; returns what the result file holds.

    Under torchrun the processes train it together, with the rows per step of the suite, and the
    first one evaluates and writes; the others return nothing.

    Raises:
        ValueError: The rows of a step cannot be shared among the processes.
    """
    import torch
    from accelerate import PartialState
    from rich.console import Console

    from gcattn.compare.evaluation import evaluate_model, write_evaluation
    from gcattn.models import DRTConfig
    from gcattn.results import describe_hardware, describe_software, source_version
    from gcattn.train.run import run_training
    from gcattn.train.run_log import LOG_FILE, read_log

    folder = runs_folder / run.name
    config = training_config(suite, run, folder)
    # before training has joined the processes, only torchrun's variable says how many there are
    config = shared_among(config, int(os.environ.get("WORLD_SIZE", "1")))
    begun_at = _last_step(folder / LOG_FILE)
    outcome = run_training(config, resume=True, console=Console(stderr=True))
    if outcome.model_folder is None:
        raise KeyboardInterrupt
    processes = PartialState()
    if not processes.is_main_process:
        return {}
    steps = config.training.steps
    # a run that was trained before an interruption is only evaluated now, which takes little memory
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    records = [r for r in read_log(folder / LOG_FILE) if r["kind"] == "train"]
    model = DRTConfig.from_pretrained(outcome.model_folder)
    tokens = steps * records[-1]["tokens"] // records[-1]["step"]
    evaluation = {
        "model": run.model,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "steps": steps,
        "tokens": tokens,
        "parameters": model.count_parameters(),
        "flops_per_token": model.flops_per_token(),
        "devices": processes.num_processes,
        "tokens_per_second": median(r["tokens_per_second"] for r in records),
        "peak_memory_gib": round(peak / 2**30, 3) if begun_at < steps else None,
        "hardware": describe_hardware(),
        "software": describe_software(),
        "source": source_version(),
        "curve": [(r["step"], round(r["loss"], 5)) for r in records],
        "texts": evaluate_model(outcome.model_folder, suite, seed=run.seed),
    }
    write_evaluation(folder / EVALUATION_FILE, evaluation)
    return evaluation


def shared_among(config: TrainConfig, processes: int) -> TrainConfig:
    """Return the configuration of each of several processes that share the rows of a step.

    Raises:
        ValueError: The forward passes of a step are not a multiple of the processes.
    """
    passes, rest = divmod(config.training.gradient_accumulation, processes)
    if rest:
        raise ValueError(
            f"{processes} devices per run share the forward passes of a step, so "
            "base.training.gradient_accumulation must be a multiple of that; got "
            f"{config.training.gradient_accumulation}."
        )
    return replace(config, training=replace(config.training, gradient_accumulation=passes))


def _last_step(log: Path) -> int:
    from gcattn.train.run_log import read_log

    return max((r["step"] for r in read_log(log)), default=0) if log.is_file() else 0


def finished(run: Run, runs_folder: Path) -> dict[str, Any] | None:
    """Return what a finished run measured, None where it is not finished."""
    file = runs_folder / run.name / EVALUATION_FILE
    if not file.is_file():
        return None
    evaluation: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return evaluation


def run_all(
    runs: Sequence[Run],
    runs_folder: Path,
    command: Sequence[str],
    *,
    devices: Sequence[Sequence[int]],
    say: Callable[[str], None],
) -> list[Run]:
    """Run what is not finished, side by side; returns the runs that failed.

    Args:
        runs: In this order.
        runs_folder: Holds a folder for each; the output of a run is in `<name>.log` beside it.
        command: Arguments of this program that run one of them when its name is added.
        devices: For each run that may go on at a time, the numbers of its GPUs.
        say: Told what begins and ends.
    """
    runs_folder.mkdir(parents=True, exist_ok=True)
    waiting = [run for run in runs if finished(run, runs_folder) is None]
    if len(waiting) < len(runs):
        say(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished already")
    free, failed = list(devices), []
    running: dict[subprocess.Popen[bytes], tuple[Run, Sequence[int], float]] = {}
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting or running:
            while waiting and free:
                run, own = waiting.pop(0), free.pop(0)
                log = (runs_folder / f"{run.name}.log").open("ab")
                environment = _environment(own, shared=len(devices) > 1)
                process = subprocess.Popen(
                    [sys.executable, *program(len(own)), *command, run.name],
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # signals reach it through us, once
                )
                log.close()
                running[process] = run, own, time.monotonic()
                names = ", ".join(map(str, own))
                say(f"{run.name} begins on device{'s' if len(own) > 1 else ''} {names}")
            for process in [p for p in running if p.poll() is not None]:
                run, own, start = running.pop(process)
                free.append(own)
                seconds = time.monotonic() - start
                if process.returncode:
                    failed.append(run)
                    log_file = runs_folder / f"{run.name}.log"
                    say(f"{run.name} failed after {seconds:,.0f} s; see {log_file}")
                else:
                    say(f"{run.name} ended after {seconds:,.0f} s")
            time.sleep(0.2)
    finally:
        for process in running:  # an interrupted comparison leaves no process behind
            process.terminate()
        for process in running:
            process.wait()
        signal.signal(signal.SIGTERM, previous)
    return failed


def program(processes: int) -> list[str]:
    """Return what the interpreter is told to run: this program, or several of it under torchrun."""
    if processes == 1:
        return ["-m", "gcattn.cli"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*launcher, "-m", "gcattn.cli"]


def _environment(devices: Sequence[int], *, shared: bool) -> dict[str, str]:
    """Return the environment of a run on its GPUs; `shared`: others run on this machine too."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(map(_visible, devices))}
    if shared:
        # as torchrun does: a thread per core in every process makes all of them crawl
        environment.setdefault("OMP_NUM_THREADS", "1")
    return environment


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _visible(device: int) -> str:
    """Return the device as the child must name it, also where only some are visible here."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[device] if given else str(device)
