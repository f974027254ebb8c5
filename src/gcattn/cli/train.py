"""`gcattn train`: one configuration in, one trained model out."""

from __future__ import annotations

import gc
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from gcattn.train.run import TrainingOutcome


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="YAML file that describes the run; see examples/."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="SECTION.KEY=VALUE", help="Overrides, such as training.steps=100."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue from the newest checkpoint in the output folder."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Delete the run in the output folder and start again."),
    ] = False,
) -> None:
    """Train a model.

    On Ctrl-C or SIGTERM the step finishes, a checkpoint is saved, and the command exits with code
    130 or 143; the same command with --resume continues.

    On several GPUs: torchrun --nproc_per_node N -m gcattn.cli train …
    """
    from rich.console import Console

    from gcattn.train.config import load_config
    from gcattn.train.run import run_training

    console = Console(stderr=True)
    outcome = run_training(
        load_config(config, overrides or []), resume=resume, overwrite=overwrite, console=console
    )
    end_run(outcome, console)


def end_run(outcome: TrainingOutcome, console: Console) -> None:
    """Report how a run ended, leave the process group, and exit like the signal that stopped it."""
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        if outcome.interrupted_by:
            name = signal.Signals(outcome.interrupted_by).name
            message = f"{name}: saved at step {outcome.step}; add --resume to continue."
        else:
            message = f"Done: {outcome.step} steps, model in {outcome.model_folder}"
        console.print(message, highlight=False, soft_wrap=True)
    if state.use_distributed:
        # what DDP left is freed before the group: as the group's last owner it may hang at the exit
        gc.collect()
    state.destroy_process_group()
    if outcome.interrupted_by:
        raise typer.Exit(128 + outcome.interrupted_by)
