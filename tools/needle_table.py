"""The table of needle scores that the README and the model cards share."""

from typing import Any

from gcattn.evals.lengths import format_length
from gcattn.evals.wilson import wilson_interval

COLUMNS = (
    "task | context, tokens | whole answers right | 95 % interval | first token, teacher-forced | "
    "s per sample |"
)

# validation splits under another name
SHORT_NAMES = {
    "bval": "books",
    "books_val": "books",
    "mathval": "math",
    "math_test": "math",
    "test": "more books",
    "books_test": "more books",
}


def needle_table(results: list[dict[str, Any]]) -> str:
    """Return a row for each task, length and haystack; trials of several results are put together.

    Haystacks have a column where there are several.
    """
    cells: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for result in results:
        for entry in result["metrics"]["by_length"]:
            cell = result["config"]["haystack"], entry["task"], entry["length"]
            cells.setdefault(cell, []).append(entry)
    names = len({haystack for haystack, _, _ in cells}) > 1
    rows = [f"| haystack | {COLUMNS}" if names else f"| {COLUMNS}"]
    rows.append("|" + " --- |" * (rows[0].count("|") - 1))
    for (haystack, task, length), entries in cells.items():
        row = _row(task, length, entries)
        rows.append(f"| {_text_name(haystack)} {row}" if names else row)
    return "\n".join(rows) + "\n"


def _text_name(haystack: str) -> str:
    """Return "books" of data/books/validation."""
    parts = [part for part in haystack.split("/") if part not in ("data", "validation", "train")]
    name = parts[-1] if parts else haystack
    return SHORT_NAMES.get(name, name)


def _row(task: str, length: int, entries: list[dict[str, Any]]) -> str:
    exact, trials = (sum(entry[name] for entry in entries) for name in ("exact", "trials"))
    first, seconds = (
        sum(entry[name] * entry["trials"] for entry in entries) / trials
        for name in ("teacher_forced_first_token", "seconds")
    )
    interval = wilson_interval(exact, trials)
    return (
        f"| {task} | {format_length(length)} | {exact} of {trials} | {100 * interval.low:.0f} – "
        f"{100 * interval.high:.0f} % | {100 * first:.0f} % | {seconds:.2f} |"
    )
