"""Where the needles and questions of a training row go in its text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from random import Random

from gcattn.data.needle_tasks.exercise import Exercise, Question
from gcattn.data.needle_tasks.phrases import TokenIds


@dataclass(frozen=True)
class Insert:
    """Ids to put into the text after `gap` of its tokens.

    Where a document begins, an insert of no ids says so.

    Attributes:
        begins_document: Whether one does.
        evidence_for: The question that a needle answers.
        questions: Those that the ids are made of, if it is no needle.
    """

    gap: int
    token_ids: TokenIds = ()
    begins_document: bool = False
    evidence_for: Question | None = None
    questions: tuple[Question, ...] = ()

    @property
    def answers(self) -> list[tuple[int, int, int]]:
        """Places of the answers in the ids, [begin, stop), and of what closes them, [stop, end)."""
        found, end = [], 0
        for question in self.questions:
            begin = end + len(question.prompt)
            end += question.num_tokens
            found.append((begin, begin + len(question.answer), end))
        return found


def place_anywhere(
    rng: Random, exercises: list[Exercise], num_text: int, near_rate: float
) -> list[Insert]:
    """Choose gaps in `num_text` tokens so that every needle comes before its questions."""
    inserts = []
    for exercise in exercises:
        *gaps, last = sorted(rng.randint(0, num_text) for _ in range(len(exercise.needles) + 1))
        if near_rate and rng.random() < near_rate:
            first = max(0, last - int(num_text ** rng.random()))
            gaps = [rng.randint(first, last) for _ in gaps]
        rng.shuffle(gaps)
        inserts += needles_at(exercise, gaps)
        inserts.append(questions_at(exercise, last))
    return inserts


def needles_at(exercise: Exercise, gaps: list[int]) -> list[Insert]:
    """Put each needle into a gap; those of one group keep their order."""
    inserts: list[Insert] = []
    asked = {number: question for question in exercise.questions for number in question.evidence}
    for group in exercise.groups:
        own, gaps = sorted(gaps[: len(group)]), gaps[len(group) :]
        for gap, needle in zip(own, group, strict=True):
            question = asked.get(len(inserts))
            inserts.append(Insert(gap, needle.token_ids, evidence_for=question))
    return inserts


def questions_at(exercise: Exercise, gap: int) -> Insert:
    """Put the questions with their answers into one gap."""
    parts = [
        question.prompt + question.answer + question.closing for question in exercise.questions
    ]
    return Insert(gap, tuple(chain.from_iterable(parts)), questions=exercise.questions)
