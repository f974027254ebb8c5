"""The report of a needle evaluation: accuracy by task, length and depth, and why samples failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from gcattn.evals.needle_answer import FAILURES, NeedleAnswer
from gcattn.evals.needle_cells import NeedleCell
from gcattn.evals.wilson import Interval, wilson_interval

# failed samples shown in a result, per cell
_SHOWN_FAILURES = 3


@dataclass(frozen=True)
class NeedleSummary:
    """Scores of some samples.

    Attributes:
        trials: Samples.
        exact: Samples whose every answer was right, token for token.
        accuracy: exact / trials.
        interval: Its Wilson interval, 95 %.
        teacher_forced_first_token: Share of questions whose first answer token was right, given the
            true text: the lenient score, never to be read alone.
        retrieved: Share of the samples whose chunks were all retrieved; None without retrieval.
        failures: Numbers of failed samples by reason.
        seconds: Mean time of a sample.
        prefill_seconds: Mean time to read its context.
        device_bytes: Mean bytes of a context on the device; None where unknown.
        host_bytes: The same in host memory.
        disk_bytes: The same on disk.
        peak_device_bytes: Most bytes ever allocated on the GPU; None on a CPU.
    """

    trials: int
    exact: int
    accuracy: float
    interval: Interval
    teacher_forced_first_token: float
    retrieved: float | None
    failures: dict[str, int]
    seconds: float
    prefill_seconds: float
    device_bytes: float | None
    host_bytes: float | None
    disk_bytes: float | None
    peak_device_bytes: int | None


def summarize(answers: Sequence[NeedleAnswer]) -> NeedleSummary:
    """Summarize the answers to at least one sample."""
    exact = sum(answer.exact for answer in answers)
    reasons = Counter(answer.failure for answer in answers)
    found = [answer.retrieved for answer in answers if answer.retrieved is not None]
    held = [answer.memory_bytes for answer in answers if answer.memory_bytes is not None]
    peaks = [a.peak_device_bytes for a in answers if a.peak_device_bytes is not None]
    return NeedleSummary(
        trials=len(answers),
        exact=exact,
        accuracy=exact / len(answers),
        interval=wilson_interval(exact, len(answers)),
        teacher_forced_first_token=sum(answer.first_tokens_right for answer in answers)
        / sum(answer.num_questions for answer in answers),
        retrieved=mean(found) if found else None,
        failures={reason: reasons[reason] for reason in FAILURES if reasons[reason]},
        seconds=mean(answer.prefill_seconds + answer.answer_seconds for answer in answers),
        prefill_seconds=mean(answer.prefill_seconds for answer in answers),
        device_bytes=mean(memory["device"] for memory in held) if held else None,
        host_bytes=mean(memory["host"] for memory in held) if held else None,
        disk_bytes=mean(memory.get("disk", 0) for memory in held) if held else None,
        peak_device_bytes=max(peaks, default=None),
    )


def by_task_and_length(cells: Iterable[NeedleCell]) -> dict[tuple[str, int], NeedleSummary]:
    """Summarize over depths, in the order of the cells."""
    groups: dict[tuple[str, int], list[NeedleAnswer]] = {}
    for cell in cells:
        groups.setdefault((cell.task, cell.length), []).extend(cell.answers)
    return {key: summarize(answers) for key, answers in groups.items()}


def metrics(cells: Sequence[NeedleCell]) -> dict[str, Any]:
    """Return plain values for a result file: by task and length, by cell, and some failures."""
    return {
        "by_length": [
            {"task": task, "length": length, **_plain(summary)}
            for (task, length), summary in by_task_and_length(cells).items()
        ],
        "cells": [
            {
                "task": cell.task,
                "length": cell.length,
                "depth": cell.depth,
                **_plain(summarize(cell.answers)),
            }
            for cell in cells
        ],
        "failed_samples": [
            {
                "task": cell.task,
                "length": cell.length,
                "depth": cell.depth,
                "index": answer.index,
                "failure": answer.failure,
                "expected": answer.expected,
                "generated": answer.generated,
            }
            for cell in cells
            for answer in [a for a in cell.answers if not a.exact][:_SHOWN_FAILURES]
        ],
    }


def _plain(summary: NeedleSummary) -> dict[str, Any]:
    return {**vars(summary), "interval": list(summary.interval)}
