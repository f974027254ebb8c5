"""What a benchmark leaves: its result file, its pictures, its table and what made it."""

from __future__ import annotations

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
