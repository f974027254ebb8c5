"""Options that the experiments share, and what is read from them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gcattn.cli.paths import expand

Steps = Annotated[int, typer.Option(min=10, help="Optimizer steps per run.")]
Seeds = Annotated[int, typer.Option(min=1, help="Runs per variant, with seeds from 0.")]
Documents = Annotated[int, typer.Option(min=64, help="Documents to train on.")]
Runs = Annotated[
    Path,
    typer.Option(
        callback=expand, help="Folder of the corpus and the runs; finished runs are kept."
    ),
]
Train = Annotated[Path, typer.Option(callback=expand, help="Folder of token shards to train on.")]
Validation = Annotated[
    Path, typer.Option(callback=expand, help="Folder of token shards to hide needles in.")
]
Samples = Annotated[int, typer.Option(min=1, help="Questions at each of eight depths.")]
Out = Annotated[Path, typer.Option(callback=expand, help="Folder of the result and its picture.")]


def read_numbers(option: str, text: str) -> list[int]:
    """Read whole numbers above 0, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"{option} must be whole numbers such as 1,2,4, got {text!r}.")
    return [int(part) for part in parts]


def progress_console() -> Console:
    """Return where progress goes: standard error, whole lines."""
    return Console(stderr=True, highlight=False, soft_wrap=True)
