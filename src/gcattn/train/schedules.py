"""What depends on the optimizer step alone, so that a resumed run meets the same values.

Steps are counted from 0: step s is the one that takes the run from s to s + 1 finished steps.
"""

import math
from collections.abc import Sequence

from gcattn.train.config import LengthChange, TopKChange, TrainingSection


def learning_rate(step: int, training: TrainingSection) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine to the minimum.

    The warm-up ends with the peak and its first step is above zero, so no step is wasted.
    """
    warmup = warmup_steps(training)
    peak, least = training.learning_rate, training.min_learning_rate
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, training.steps - 1 - warmup))
    return least + (peak - least) * (1 + math.cos(math.pi * progress)) / 2


def warmup_steps(training: TrainingSection) -> int:
    """Return the warm-up in steps; a fraction is rounded up."""
    if training.warmup >= 1:
        return int(training.warmup)
    return math.ceil(training.warmup * training.steps)


def top_k_change(step: int, schedule: Sequence[TopKChange]) -> TopKChange | None:
    """Return the entry in force at a step, None before the first."""
    return next((change for change in reversed(schedule) if change.step <= step), None)


def sequence_length(step: int, curriculum: Sequence[LengthChange], full_length: int) -> int:
    """Return the tokens per row at a step; the full length before the first entry."""
    for change in reversed(curriculum):
        if change.step <= step:
            return change.sequence_length
    return full_length
