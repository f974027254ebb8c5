"""Which runs of a suite are made, and the result of those that finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcattn.compare.report import compare
from gcattn.compare.runs import finished
from gcattn.compare.suite import Run, Suite
from gcattn.results import write_result

MEASURED = ("source", "hardware", "software")


def _measured(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return code and machine of the first run, with the commits of all of them."""
    measured = {key: evaluations[0][key] for key in MEASURED if key in evaluations[0]}
    if "source" in measured:
        commits = dict.fromkeys(run.get("source", {}).get("commit") for run in evaluations)
        measured["source"] |= {"commit": ", ".join(filter(None, commits)) or None}
    return measured


def choose_runs(suite: Suite, runs: Sequence[Run], models: str | None) -> list[Run]:
    """Return the runs of models named with commas between them, or all.

    Raises:
        ValueError: A model is not in the suite.
    """
    if models is None:
        return list(runs)
    names = models.split(",")
    if unknown := [name for name in names if name not in suite.models]:
        raise ValueError(
            f"{', '.join(unknown)}: no such models in the suite, which has "
            f"{', '.join(suite.models)}."
        )
    return [run for run in runs if run.model in names]


def write_comparison(
    suite: Suite, runs: Sequence[Run], runs_folder: Path, file: Path, config: dict[str, Any]
) -> dict[str, Any]:
    """Compare the runs that finished and write the result.

    Args:
        suite: What was trained.
        runs: All runs of the suite.
        runs_folder: Holds a folder for each.
        file: Result file.
        config: How they were run, for the result.

    Returns:
        The metrics; "unfinished" names the runs that are missing.

    Raises:
        ValueError: No run was finished.
    """
    done = {run.name: evaluation for run in runs if (evaluation := finished(run, runs_folder))}
    if not done:
        raise ValueError(f"No run was finished; their logs are in {runs_folder}.")
    metrics: dict[str, Any] = compare(suite, list(done.values()))
    metrics["unfinished"] = [run.name for run in runs if run.name not in done]
    write_result(
        file.stem,
        {"suite": vars(suite), **config},
        metrics,
        folder=file.parent,
        seed=min(suite.seeds),
        trials=len(suite.seeds),
        # the report may be written on a machine that trained nothing
        measured=_measured(list(done.values())),
    )
    return metrics
