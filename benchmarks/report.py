"""What a benchmark leaves: its result file, its pictures, its table and what made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.cli.table_printing import print_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def fewest_repetitions(metrics: dict[str, Any]) -> int:
    """Return the smallest number of repetitions behind a time of `bench_operator`."""
    counts = [
        row[part]["repetitions"]
        for shape in metrics["shapes"]
        for row in shape["contestants"].values()
        for part in ("forward", "forward_backward")
        if part in row
    ]
    return min(counts, default=0)


def finish(
    name: str,
    config: dict[str, Any],
    metrics: dict[str, Any],
    table: Callable[[dict[str, Any]], Table],
    plot: Callable[[dict[str, Any], Path], object] | None = None,
    *,
    out: Path,
    seed: int,
    trials: int,
    num_labels: int = 3,
) -> None:
    """Write the result and its picture, print its table, and say where the files are.

    Args:
        name: Of the result file.
        config: What was asked for.
        metrics: What was measured.
        table: Makes the table of the metrics.
        plot: Draws the metrics into a file.
        out: Folder of the result.
        seed: Of weights and data.
        trials: Repetitions behind a number.
        num_labels: Columns of the table that are text.
    """
    from gcattn.results import write_result

    file = write_result(name, config, metrics, folder=out, seed=seed, trials=trials)
    pictures = []
    if plot is not None:
        pictures.append(file.with_suffix(".png"))
        plot(metrics, pictures[0])
    report(table(metrics), file, *pictures, num_labels=num_labels)


def report(table: Table, result: Path, *pictures: Path, num_labels: int) -> None:
    """Print the table, what measured it, and where the files are."""
    from rich.console import Console

    console = Console()
    print_table(console, table, num_labels=num_labels)
    lines = (_made_with(result), result, *pictures)
    console.print(*lines, sep="\n", highlight=False, soft_wrap=True)


def progress_console() -> Console:
    """Return where progress goes: standard error, whole lines."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def _made_with(file: Path) -> str:
    """Return what measured and what was measured, in one line."""
    from gcattn.results import read_result

    result = read_result(file)
    hardware, software, source = (result[key] for key in ("hardware", "software", "source"))
    commit = source.get("commit", "unknown")[:10] + (" and changes" if source.get("dirty") else "")
    return (
        f"{hardware.get('gpu', hardware['cpu'])}, torch {software['torch']}, "
        f"triton {software['triton']}, gcattn {source['version']}, commit {commit}"
    )
