"""Samples that share one context: it is read once, and each question is asked on its own."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gcattn.data.needle_tasks.exercise import Exercise
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.interleaved_text import InterleavedText
from gcattn.data.needle_tasks.phrases import TokenIds
from gcattn.data.needle_tasks.sample import LENGTH_SPREAD, NeedleSample, draw_gaps
from gcattn.data.needle_tasks.tasks import NeedleTask
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary

_TRIES = 100


def draw_sharing_samples(
    task: NeedleTask,
    haystack: Haystack,
    vocabulary: NeedleVocabulary,
    *,
    length: int,
    seed: int,
    depths: Sequence[float],
    num_samples: int,
) -> list[NeedleSample]:
    """Draw samples whose needles are hidden in one context, so each has the others' as distractors.

    Args:
        task: What is hidden and asked.
        haystack: The text around all needles.
        vocabulary: Keys and values.
        length: Tokens of the context and of the longest sample's questions and answers; up to 127
            fewer are used.
        seed: Fixes the samples.
        depths: Where the first needle of an answer lies, 0 to 1. The samples of one depth lie a
            little apart, toward the middle: side by side, their needles would be one passage.
        num_samples: Samples of each depth.

    Returns:
        The samples of the first depth, then of the second, …; no two ask the same question.

    Raises:
        ValueError: `length` has no room for all of them, or their questions can't all differ.
    """
    rng = Random(f"{seed} {vocabulary.split} {task} {length} {list(depths)} {num_samples} shared")
    spread = min(LENGTH_SPREAD, length // 8)
    exercises = _different(rng, task, haystack, vocabulary, len(depths) * num_samples, length)
    needles = sum(len(n.token_ids) for exercise in exercises for n in exercise.needles)
    asked = max(
        sum(question.num_tokens for question in exercise.questions) for exercise in exercises
    )
    if length < needles + asked + spread:
        raise ValueError(
            f"{len(exercises)} samples of {str(task)!r} in one context need a length of at least "
            f"{needles + asked + spread} tokens, got {length}."
        )
    num_text = length - rng.randrange(max(spread, 1)) - needles - asked
    inserts: list[tuple[int, TokenIds]] = []
    firsts: list[int] = []
    for number, exercise in enumerate(exercises):
        firsts.append(len(inserts))
        depth = depths[number // num_samples]
        apart = number % num_samples / (4 * len(exercises))
        gaps = draw_gaps(rng, exercise, num_text, depth - apart if depth > 0.5 else depth + apart)
        inserts += [(gap, n.token_ids) for gap, n in zip(gaps, exercise.needles, strict=True)]
    context = InterleavedText(haystack, rng.randrange(haystack.num_tokens), num_text, inserts)
    return [
        NeedleSample(context, exercise, first)
        for exercise, first in zip(exercises, firsts, strict=True)
    ]


def _different(
    rng: Random,
    task: NeedleTask,
    haystack: Haystack,
    vocabulary: NeedleVocabulary,
    count: int,
    room: int,
) -> list[Exercise]:
    """Draw exercises no two of which ask the same question."""
    exercises: list[Exercise] = []
    prompts: set[tuple[int, ...]] = set()
    for _ in range(_TRIES * count):
        exercise = task.draw_within(rng, vocabulary, haystack, room)
        own = {question.prompt for question in exercise.questions}
        if own & prompts:
            continue
        prompts |= own
        exercises.append(exercise)
        if len(exercises) == count:
            return exercises
    raise ValueError(
        f"The task {str(task)!r} has no {count} different questions; ask fewer in one context."
    )
