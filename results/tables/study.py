"""What all tables are made with: the scores of a study, and Markdown."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from results.collect import FOLDER, Line, read_lines

Table = Callable[[], str]
NOT_MEASURED = "–"
# the text that most needles are hidden in
BOOKS = "data/books/validation"


def scores(study: str, **wanted: Any) -> list[Line]:
    """Return the lines of a study whose fields are as wanted, in the order of the file.

    Raises:
        ValueError: There are none.
    """
    lines = _read_once(FOLDER / f"{study}.jsonl")
    found = [x for x in lines if all(x.get(field) == value for field, value in wanted.items())]
    if not found:
        raise ValueError(f"results/{study}.jsonl has no line with {wanted}.")
    return found


@cache
def _read_once(file: Path) -> list[Line]:
    return read_lines(file)


def values(lines: Sequence[Line], field: str) -> list[Any]:
    """Return the different values of a field, in the order of the lines."""
    return list(dict.fromkeys(line[field] for line in lines if field in line))


def mean_and_deviation(lines: Sequence[Line], digits: int, *, factor: float = 1.0) -> str:
    """Write the mean of scores and their standard deviation."""
    numbers = [factor * line["score"] for line in lines]
    return f"{mean(numbers):.{digits}f} ± {stdev(numbers):.{digits}f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def source(study: str, lines: Sequence[Line]) -> str:
    """Return the line below a table: its file, and on what and when it was measured."""
    machines = values(lines, "hardware")
    torch = [f"torch {version}" for version in values(lines, "torch")]
    dates = sorted(values(lines, "date"))
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    what = " · ".join([*machines, *torch, when])
    return f"\n`results/{study}.jsonl` · {what}\n"
