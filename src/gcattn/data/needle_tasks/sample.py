"""One evaluation sample: a context of any length with needles in it, and questions after it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from gcattn.data.needle_tasks.exercise import Exercise, Question
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.interleaved_text import InterleavedText
from gcattn.data.needle_tasks.tasks import NeedleTask
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary

# contexts are shorter than asked for by less than this, so that questions fall on any slot
LENGTH_SPREAD = 128


@dataclass(frozen=True)
class NeedleSample:
    """A context to read and the questions to ask after it.

    Attributes:
        context: Haystack and needles; read it with `segments` or `tokens`.
        exercise: The needles and the questions.
        first_insert: Number of its first needle in the context, which other samples may share.
    """

    context: InterleavedText
    exercise: Exercise
    first_insert: int = 0

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions, to be asked one after the other."""
        return self.exercise.questions

    @property
    def num_tokens(self) -> int:
        """Tokens of context, questions and answers together."""
        asked = sum(question.num_tokens for question in self.questions)
        return self.context.num_tokens + asked - len(self.questions[-1].closing)

    def evidence(self, question: Question) -> list[range]:
        """Return the positions in the context whose tokens the answer repeats."""
        needles = self.exercise.needles
        starts = self.context.starts[self.first_insert :]
        return [
            range(starts[number] + needles[number].start, starts[number] + needles[number].stop)
            for number in question.evidence
        ]


def draw_sample(
    task: NeedleTask,
    haystack: Haystack,
    vocabulary: NeedleVocabulary,
    *,
    length: int,
    seed: int,
    index: int,
    depth: float | None = None,
) -> NeedleSample:
    """Draw the sample that the arguments stand for; equal arguments give equal samples.

    Args:
        task: What is hidden and asked.
        haystack: The text around it.
        vocabulary: Keys and values; its split keeps those of training and evaluation apart.
        length: Tokens of context, questions and answers together; up to 127 fewer are used, so that
            needle and question fall on any slot of a chunk.
        seed: Fixes the samples.
        index: Which of them.
        depth: Where the first needle of the answer lies, from 0 (before the haystack) to 1
            (after it), counted in haystack tokens; the others lie at random places. None: that one
            too.

    Raises:
        ValueError: An argument is out of range, or `length` has no room for the task.
    """
    if depth is not None and not 0 <= depth <= 1:
        raise ValueError(f"depth must lie in [0, 1], got {depth}.")
    rng = Random(f"{seed} {vocabulary.split} {task} {length} {depth} {index}")
    spread = min(LENGTH_SPREAD, length // 8)
    exercise = task.draw_within(rng, vocabulary, haystack, length - spread)
    needed = exercise.num_tokens - len(exercise.questions[-1].closing)
    if length < needed + spread:
        raise ValueError(
            f"The task {str(task)!r} needs a length of at least {needed + spread} tokens, got "
            f"{length}."
        )
    num_text = length - rng.randrange(max(spread, 1)) - needed
    gaps = draw_gaps(rng, exercise, num_text, depth)
    inserts = [(gap, n.token_ids) for gap, n in zip(gaps, exercise.needles, strict=True)]
    start = rng.randrange(haystack.num_tokens)
    return NeedleSample(InterleavedText(haystack, start, num_text, inserts), exercise)


def draw_gaps(rng: Random, exercise: Exercise, num_text: int, depth: float | None) -> list[int]:
    """Draw how many haystack tokens lie before each needle; a group's needles stay in order."""
    gaps: list[int] = []
    for group in exercise.groups:
        if depth is None or gaps:
            gaps += sorted(rng.randint(0, num_text) for _ in group)
            continue
        first = round(depth * num_text)
        gaps += [first, *sorted(rng.randint(first, num_text) for _ in group[1:])]
    return gaps
