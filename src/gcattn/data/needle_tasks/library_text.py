"""Training rows that look like a memory of files: files with facts, then conversations about them.

A file begins a document, and so does a conversation: nothing but retrieval crosses its beginning.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from random import Random

import numpy as np

from gcattn.data.needle_tasks.exercise import Exercise
from gcattn.data.needle_tasks.haystack import Haystack, join_parts
from gcattn.data.needle_tasks.interleaved_text import InterleavedText
from gcattn.data.needle_tasks.placement import Insert, needles_at, questions_at

# tokens of text in a short file; facts come on top
SHORT_FILE = (200, 1000)
# shares of longer files, of any order of magnitude; one of these is drawn for each row
LONG_SHARES = (0.0, 0.2)
# share of the files that begin where a document of the corpus does; the others begin anywhere. Rows
# have dozens of files, a corpus has a thousand beginnings: of a half, all were soon known by heart
WHOLE_BEGINNINGS = 0.05
# share of the facts that are the first words of a file
FIRST_WORDS = 0.25
# tokens of text before the first question of a conversation: below 0 there are none
TOKENS_BEFORE = (-60, 600)
# exercises that one conversation asks about, of any order of magnitude
MOST_ASKED = 16


def library_text(
    rng: Random, exercises: list[Exercise], haystack: Haystack, num_text: int
) -> tuple[InterleavedText, list[Insert]]:
    """Lay out files and conversations with `num_text` tokens of text beside the exercises.

    Returns:
        The text and its inserts; those that begin a document hold no ids.
    """
    conversations = _conversations(rng, exercises)
    befores, left = [], num_text // 4
    for _ in conversations:
        befores.append(min(max(rng.randint(*TOKENS_BEFORE), 0), left))
        left -= befores[-1]
    files = _file_lengths(rng, num_text - sum(befores))
    starts = [0, *accumulate(files)]
    num_in_files = starts.pop()
    # a row that exercises fill has one file, of facts alone
    inserts = [Insert(gap, begins_document=True) for gap in starts or [0]]
    for exercise in exercises:
        gaps = [_gap(rng, starts, num_in_files) for _ in exercise.needles]
        inserts += needles_at(exercise, gaps)
    gap = num_in_files
    for asked, before in zip(conversations, befores, strict=True):
        inserts.append(Insert(gap, begins_document=True))
        gap += before
        inserts += [questions_at(exercise, gap) for exercise in asked]
    text = _JoinedText([_stretch(rng, haystack, length) for length in (*files, *befores)])
    placed = [(insert.gap, insert.token_ids) for insert in inserts]
    return InterleavedText(text, 0, num_text, placed), inserts


class _JoinedText:
    """Stretches of text, one after the other."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self._ids = join_parts(parts)

    @property
    def num_tokens(self) -> int:
        return len(self._ids)

    def read(self, start: int, num_tokens: int) -> np.ndarray:
        return self._ids[start : start + num_tokens]


def _conversations(rng: Random, exercises: list[Exercise]) -> list[list[Exercise]]:
    conversations, first = [], 0
    while first < len(exercises):
        size = int((MOST_ASKED + 1) ** rng.random())
        conversations.append(exercises[first : first + size])
        first += size
    return conversations


def _file_lengths(rng: Random, num_tokens: int) -> list[int]:
    """Divide the text among files; the last one takes what is left."""
    (least, most), long_share, lengths = SHORT_FILE, rng.choice(LONG_SHARES), []
    while num_tokens:
        low, high = least, most
        if rng.random() < long_share:
            low, high = most, max(most, num_tokens)
        lengths.append(min(int(low * (high / low) ** rng.random()), num_tokens))
        num_tokens -= lengths[-1]
    return lengths


def _gap(rng: Random, starts: list[int], num_in_files: int) -> int:
    """Choose a place for a fact, in any of the files that begin at `starts`."""
    if not num_in_files:
        return 0
    gap = rng.randrange(num_in_files)
    if rng.random() < FIRST_WORDS:
        gap = starts[bisect_right(starts, gap) - 1]
    return gap


def _stretch(rng: Random, haystack: Haystack, num_tokens: int) -> np.ndarray:
    start = rng.randrange(haystack.num_tokens)
    if rng.random() < WHOLE_BEGINNINGS:
        start = haystack.beginning_before(start)
    return haystack.read(start, num_tokens)
