"""Training rows with needles: text, sentences hidden in it and their questions, any number a row.

Shapes: T tokens per row.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gcattn.chunking.breaks import CLOSES_BEFORE_END
from gcattn.chunking.labels import IGNORED
from gcattn.data.needle_tasks.exercise import Exercise
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.interleaved_text import InterleavedText
from gcattn.data.needle_tasks.library_text import library_text
from gcattn.data.needle_tasks.placement import Insert, place_anywhere
from gcattn.data.needle_tasks.plan import NeedlePlan, read_mixture
from gcattn.data.needle_tasks.tasks import NeedleTask
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary
from gcattn.data.token_shards import TokenShards
from gcattn.data.words.split import Split

DEFAULT_NUM_ROWS = 2**20
# share of the corrupted rows whose noise repeats itself, and after how many tokens at most
PERIODIC_SHARE = 0.5
MAX_PERIOD = 64


class NeedleRows(Dataset[dict[str, Tensor]]):
    """Rows of exactly `sequence_length` tokens (T), as dicts of "input_ids" and "labels" [T].

    Row i follows from the arguments and i alone; it begins at a random place of the corpus. Needles
    and questions lie at random places, each question after its needles. The labels equal the
    inputs but where the plan's loss shares leave them out: the model shifts them.

    Args:
        shards: The text around the needles.
        sequence_length: Tokens per row, T.
        plan: What is hidden in them.
        split: Whose keys and values are used, "train" or "validation"; they are disjoint.
        seed: Fixes all rows.
        num_rows: How many rows there are.
        random_break_rate: Probability, per token, that its chunk closes early; above 0, or with the
            plan's `question_break_rate`, rows hold "chunk_breaks" [T], bool.
        library_rate: Share of the rows that are read as a library: files with needles, then
            conversations with the questions, kept apart by "document_ids" [T]. The other rows then
            have a single document.
        include_answer_mask: Add "answer_mask" [T], one where a token belongs to an answer.
        include_evidence: Add "evidence" [T], where answers are said and predicted, as the marks of
            `gcattn.nn.evidence.Evidence`.
        excluded_ids: Ids that never occur in text, such as a model's landmark.

    Raises:
        ValueError: An argument is out of range, or a task does not fit into a row.
    """

    def __init__(
        self,
        shards: TokenShards,
        sequence_length: int,
        plan: NeedlePlan,
        *,
        split: Split = "train",
        seed: int = 0,
        num_rows: int = DEFAULT_NUM_ROWS,
        random_break_rate: float = 0.0,
        library_rate: float = 0.0,
        include_answer_mask: bool = False,
        include_evidence: bool = False,
        excluded_ids: Iterable[int] = (),
    ) -> None:
        if num_rows < 1:
            raise ValueError(f"num_rows must be at least 1, got {num_rows}.")
        if not 0 <= random_break_rate < 1:
            raise ValueError(f"random_break_rate must lie in [0, 1), got {random_break_rate}.")
        if not 0 <= library_rate <= 1:
            raise ValueError(f"library_rate must lie in [0, 1], got {library_rate}.")
        tasks, self._text_share = read_mixture(plan.mixture)
        self.plan = plan
        self.sequence_length = sequence_length
        self.random_break_rate = random_break_rate
        self.library_rate = library_rate
        self.include_answer_mask = include_answer_mask
        self.include_evidence = include_evidence
        self._tasks, self._weights = list(tasks), list(tasks.values())
        self._seed = seed
        self._num_rows = num_rows
        self._haystack = Haystack(shards)
        ids = np.arange(shards.num_text_ids)
        self._noise_ids = ids[~np.isin(ids, [shards.eos_token_id, *excluded_ids])]
        self._words = NeedleVocabulary(shards.tokenizer, split, excluded_ids=excluded_ids)
        self.check_length(sequence_length)

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Tensor]:
        """Return row `index`; with a length, (index, length), one that can be cut into pieces.

        Every piece of `length` tokens then is a row of its own, with questions that it answers.
        """
        number, length = (index, self.sequence_length) if isinstance(index, int) else index
        if not 0 <= number < self._num_rows:
            raise IndexError(f"Row {number} is outside [0, {self._num_rows}).")
        if length < 1 or self.sequence_length % length:
            raise ValueError(
                f"A length must divide sequence_length = {self.sequence_length}, got {length}."
            )
        pieces = self.sequence_length // length
        rows = [self._row(number * pieces + piece, length) for piece in range(pieces)]
        return {
            name: torch.from_numpy(np.concatenate([row[name] for row in rows])) for name in rows[0]
        }

    def check_length(self, length: int) -> None:
        """Raise ValueError if a task does not fit into `length` tokens."""
        for task in self._tasks:
            self._draw(Random(self._seed), task, length)

    def _row(self, number: int, length: int) -> dict[str, np.ndarray]:
        rng = Random(f"{self._seed} {self._words.split} {length} {number}")
        text, inserts = self._text(rng, length)
        input_ids = text.tokens(0, length)
        answers, inserted = np.zeros(length, dtype=bool), np.zeros(length, dtype=bool)
        closings, question_breaks = np.zeros((2, length), dtype=bool)
        document_ids = np.zeros(length, dtype=np.int64)
        for insert, start in zip(inserts, text.starts, strict=True):
            document_ids[start:] += insert.begins_document
        for insert, start in zip(inserts, text.starts, strict=True):
            inserted[start : start + len(insert.token_ids)] = True
            for begin, stop, end in insert.answers:
                answers[start + begin : start + stop] = True
                closings[start + stop : start + end] = True
                if rng.random() < self.plan.question_break_rate:
                    # where those of a prompt that ends with the question do
                    first = np.searchsorted(document_ids, document_ids[start + begin])
                    places = [start + begin - behind for behind in CLOSES_BEFORE_END]
                    question_breaks[[place for place in places if place >= first]] = True
        draw = np.random.default_rng(rng.getrandbits(63))
        text_share, needle_share = self.plan.loss_shares
        # only answers have a label in a corrupted row: without any it would teach nothing
        if answers.any() and rng.random() < self.plan.noisy_text_rate:
            spoiled = ~inserted & (draw.random(length) < draw.random())
            # few of them repeat often, as indentation and digits do
            kinds = int(len(self._noise_ids) ** draw.random())
            ids = draw.choice(self._noise_ids, kinds, replace=False)
            noise = draw.choice(ids, length)
            if draw.random() < PERIODIC_SHARE:
                # as lines of a table do: all chunks then say the same
                noise = noise[np.arange(length) % draw.integers(1, MAX_PERIOD + 1)]
            input_ids[spoiled] = noise[spoiled]
            text_share = needle_share = 0.0
        labels = input_ids.copy()
        # rows of text alone teach all of it
        if answers.any() and min(text_share, needle_share) < 1:
            shares = np.where(inserted & ~closings, needle_share, text_share)
            kept = draw.random(length) < shares
            labels[~(kept | answers)] = IGNORED
        row = {"input_ids": input_ids, "labels": labels}
        if self.random_break_rate or self.plan.question_break_rate:
            breaks = draw.random(length) < self.random_break_rate
            row["chunk_breaks"] = breaks | question_breaks
        if self.library_rate:
            row["document_ids"] = document_ids
        if self.include_answer_mask:
            row["answer_mask"] = answers.astype(np.int64)
        if self.include_evidence:
            row["evidence"] = _evidence(inserts, text.starts, length)
        return row

    def _text(self, rng: Random, length: int) -> tuple[InterleavedText, list[Insert]]:
        is_library = self.library_rate > 0 and rng.random() < self.library_rate
        exercises = self._exercises(rng, length)
        num_text = length - sum(exercise.num_tokens for exercise in exercises)
        if is_library:
            return library_text(rng, exercises, self._haystack, num_text)
        inserts = place_anywhere(rng, exercises, num_text, self.plan.near_question_rate)
        start = rng.randrange(self._haystack.num_tokens)
        placed = [(insert.gap, insert.token_ids) for insert in inserts]
        return InterleavedText(self._haystack, start, num_text, placed), inserts

    def _exercises(self, rng: Random, length: int) -> list[Exercise]:
        if rng.random() < self._text_share:
            return []
        exercises: list[Exercise] = []
        filled = 0
        for task in rng.choices(self._tasks, self._weights, k=self.plan.exercises_per_row):
            exercise = self._draw(rng, task, length)
            filled += exercise.num_tokens
            if exercises and filled > length // 2:
                break
            exercises.append(exercise)
        return exercises

    def _draw(self, rng: Random, task: NeedleTask, length: int) -> Exercise:
        exercise = task.draw_within(rng, self._words, self._haystack, length)
        if exercise.num_tokens > length:
            raise ValueError(
                f"The task {str(task)!r} takes {exercise.num_tokens} tokens, a row has "
                f"{length}; lengthen the rows or lower the task's count."
            )
        return exercise


def _evidence(inserts: list[Insert], starts: list[int], length: int) -> np.ndarray:
    """Return numbers of questions [T], above 0 at their needles, below 0 before answer tokens."""
    # by identity: two exercises may ask the same
    numbers = {
        id(question): number
        for number, question in enumerate((q for x in inserts for q in x.questions), start=1)
    }
    marks = np.zeros(length, dtype=np.int64)
    for insert, start in zip(inserts, starts, strict=True):
        if insert.evidence_for is not None:
            marks[start : start + len(insert.token_ids)] = numbers[id(insert.evidence_for)]
        for question, (begin, stop, _) in zip(insert.questions, insert.answers, strict=True):
            # each token is predicted by the one before it
            marks[start + begin - 1 : start + stop - 1] = -numbers[id(question)]
    return marks
