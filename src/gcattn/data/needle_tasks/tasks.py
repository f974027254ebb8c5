"""The needle tasks by name, and how many keys, values or chains each has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from gcattn.data.needle_tasks.cloze import cloze
from gcattn.data.needle_tasks.exercise import Exercise
from gcattn.data.needle_tasks.free_wordings import FreeWordings
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.notes import notes
from gcattn.data.needle_tasks.people import free_people, people
from gcattn.data.needle_tasks.secrets import (
    multi_key,
    multi_query,
    multi_value,
    number,
    single,
    three_hop,
    three_hop_direct,
    three_hop_varied,
    two_hop,
    two_hop_direct,
    two_hop_varied,
)
from gcattn.data.needle_tasks.self_copy import self_copy
from gcattn.data.needle_tasks.variables import variables
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary
from gcattn.data.needle_tasks.worded import (
    worded_multi_key,
    worded_multi_query,
    worded_multi_value,
    worded_single,
    worded_variables,
)
from gcattn.data.needle_tasks.wordings import WordingSource

Draw = Callable[[Random, NeedleVocabulary, Haystack, int], Exercise]
WordedDraw = Callable[[Random, NeedleVocabulary, WordingSource, int], Exercise]

_WORDED = {
    "single": (worded_single, None),
    "multi-key": (worded_multi_key, 4),
    "multi-value": (worded_multi_value, 3),
    "multi-query": (worded_multi_query, 3),
    "variables": (worded_variables, 3),
}


def _listed(draw: WordedDraw) -> Draw:
    return lambda rng, words, haystack, count: draw(rng, words, words.wordings, count)


def _free(draw: WordedDraw) -> Draw:
    return lambda rng, words, haystack, count: draw(
        rng, words, FreeWordings(words, haystack), count
    )


# how an exercise is drawn, and its default count; None where there is nothing to count
_TASKS: dict[str, tuple[Draw, int | None]] = {
    "single": (single, None),
    "number": (number, None),
    "multi-key": (multi_key, 8),
    "multi-value": (multi_value, 4),
    "multi-query": (multi_query, 4),
    "two-hop": (two_hop, 8),
    "three-hop": (three_hop, 8),
    "two-hop-direct": (two_hop_direct, 8),
    "three-hop-direct": (three_hop_direct, 8),
    "two-hop-varied": (two_hop_varied, 8),
    "three-hop-varied": (three_hop_varied, 8),
    "variables": (variables, 3),
    "self-copy": (self_copy, 16),
    "cloze": (cloze, 4),
    "notes": (notes, 4),
    **{f"worded-{name}": (_listed(draw), count) for name, (draw, count) in _WORDED.items()},
    "people": (people, 4),
    **{f"free-{name}": (_free(draw), count) for name, (draw, count) in _WORDED.items()},
    "free-people": (free_people, 4),
}
# exercises of the worded tasks differ in size: so many are drawn until one has room
_TRIES = 32
TASK_NAMES = tuple(_TASKS)


@dataclass(frozen=True)
class NeedleTask:
    """A task, written `name` or `name:count`.

    Attributes:
        name: One of `TASK_NAMES`.
        count: Keys (multi-key), values (multi-value), questions (multi-query), chains (two-hop,
            three-hop, their direct and varied forms), variables of a value (variables) or tokens
            to continue with (self-copy), people (people), sentences (cloze), notes (notes);
            the worded forms count the same.

    Raises:
        ValueError: There is no such task, or the count does not fit it.
    """

    name: str
    count: int | None = None

    def __post_init__(self) -> None:
        if self.name not in _TASKS:
            raise ValueError(f"task must be one of {', '.join(TASK_NAMES)}, got {self.name!r}.")
        if self.count is not None and _TASKS[self.name][1] is None:
            raise ValueError(f"The task {self.name!r} has no count, got {self.count}.")
        if self.count is not None and self.count < 1:
            raise ValueError(f"The count of {self.name!r} must be at least 1, got {self.count}.")

    @classmethod
    def parse(cls, text: str) -> NeedleTask:
        """Read `name` or `name:count`."""
        name, colon, count = text.strip().partition(":")
        if colon and not count.isdecimal():
            raise ValueError(f"A task must look like multi-key or multi-key:16, got {text!r}.")
        return cls(name, int(count) if colon else None)

    def __str__(self) -> str:
        return self.name if self.count is None else f"{self.name}:{self.count}"

    def draw(self, rng: Random, vocabulary: NeedleVocabulary, haystack: Haystack) -> Exercise:
        """Draw an exercise."""
        draw, default = _TASKS[self.name]
        return draw(rng, vocabulary, haystack, self.count or default or 1)

    def draw_within(
        self, rng: Random, vocabulary: NeedleVocabulary, haystack: Haystack, room: int
    ) -> Exercise:
        """Draw until an exercise takes at most `room` tokens; after many tries return the last."""
        for _ in range(_TRIES):
            exercise = self.draw(rng, vocabulary, haystack)
            if exercise.num_tokens <= room:
                break
        return exercise
