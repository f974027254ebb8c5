"""The table of needle scores that the README and the model cards share."""

from typing import Any

from gcattn.evals.lengths import format_length
from gcattn.evals.wilson import wilson_interval

HEADER = (
    "| task | context, tokens | whole answers right | 95 % interval | "
    "first token, teacher-forced | s per sample |\n| --- | --- | --- | --- | --- | --- |"
)


def needle_table(results: list[dict[str, Any]]) -> str:
    """Return a row for each task and length; trials of several results are put together."""
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for result in results:
        for entry in result["metrics"]["by_length"]:
            cells.setdefault((entry["task"], entry["length"]), []).append(entry)
    return "\n".join([HEADER, *(_row(*cell, entries) for cell, entries in cells.items())]) + "\n"


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
