"""The report of a RULER evaluation: scores by task and length, means by length, failures."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from gcattn.evals.ruler import RulerCell
from gcattn.evals.wilson import wilson_interval

# failed samples shown in a result, per cell
_SHOWN_FAILURES = 3


def metrics(cells: Sequence[RulerCell]) -> dict[str, Any]:
    """Return plain values for a result file."""
    lengths = list(dict.fromkeys(cell.length for cell in cells))
    return {
        "cells": [{"task": cell.task, "length": cell.length, **_summary(cell)} for cell in cells],
        "mean_by_length": [
            {
                "length": length,
                "tasks": len(own),
                "score": mean(_summary(cell)["score"] for cell in own),
            }
            for length in lengths
            if (own := [cell for cell in cells if cell.length == length])
        ],
        "failed_samples": [
            {
                "task": cell.task,
                "length": cell.length,
                "index": answer.index,
                "references": answer.references,
                "text": answer.text,
            }
            for cell in cells
            for answer in [a for a in cell.answers if not a.all_found][:_SHOWN_FAILURES]
        ],
    }


def _summary(cell: RulerCell) -> dict[str, Any]:
    """Summarize a cell.

    A score is a mean of shares, which vary no more than right-or-wrong trials of the same mean, so
    Wilson's interval is wide enough.
    """
    trials = len(cell.answers)
    total = sum(answer.score for answer in cell.answers)
    found = sum(answer.all_found for answer in cell.answers)
    return {
        "trials": trials,
        "score": total / trials,
        "interval": list(wilson_interval(total, trials)),
        "all_found": found,
        "all_found_interval": list(wilson_interval(found, trials)),
        "begins_right": sum(answer.begins_right for answer in cell.answers),
        "mean_tokens": mean(answer.num_tokens for answer in cell.answers),
        "seconds": mean(answer.seconds for answer in cell.answers),
        "prefill_seconds": mean(answer.prefill_seconds for answer in cell.answers),
    }
