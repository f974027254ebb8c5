"""What a benchmark leaves: its result file, its pictures, its table and what made it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDEST_TABLE = 240


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


def report(table: Table, result: Path, *pictures: Path) -> None:
    """Print the table, what measured it, and where the files are."""
    from rich.console import Console

    console = Console()
    # a number cut off is worse than a line that a narrow terminal wraps
    widest = console.measure(table, options=console.options.update(max_width=WIDEST_TABLE))
    console.width = max(console.width, widest.maximum)
    console.print(table)
    console.print(_made_with(result), result, *pictures, sep="\n", highlight=False)


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
