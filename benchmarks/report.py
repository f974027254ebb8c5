"""What a benchmark leaves: its result file, its pictures, its table and what made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.cli.table_printing import print_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# where a benchmark hands its result so far, after every row
Keep = Callable[[dict[str, Any]], object]


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


@dataclass(frozen=True)
class ResultFile:
    """A benchmark's result, written again after every row: an interrupted run keeps its numbers."""

    name: str
    """Of the file, without its ending."""
    config: dict[str, Any]
    """What was asked for."""
    out: Path
    """Its folder."""
    seed: int
    """Of weights and data."""
    trials: int | Callable[[dict[str, Any]], int]
    """Repetitions behind a number; told by the metrics where it varies."""

    def write(self, metrics: dict[str, Any]) -> Path:
        """Write what has been measured so far."""
        from gcattn.results import write_result

        trials = self.trials if isinstance(self.trials, int) else self.trials(metrics)
        return write_result(
            self.name, self.config, metrics, folder=self.out, seed=self.seed, trials=trials
        )

    def finish(
        self,
        metrics: dict[str, Any],
        table: Callable[[dict[str, Any]], Table],
        plot: Callable[[dict[str, Any], Path], object] | None = None,
        *,
        num_labels: int = 3,
    ) -> None:
        """Write the result and its picture, print its table, and say where the files are.

        Args:
            metrics: What was measured.
            table: Makes the table of the metrics.
            plot: Draws the metrics into a file.
            num_labels: Columns of the table that are text.
        """
        file = self.write(metrics)
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
