"""What needles and their questions are worded with: many styles, apart for each split.

A statement says the value of a key, a question asks for it and ends right before the value.
No wording of evaluation shares a run of four words with one of training, so a model that answers
them has learned to read a question, not a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol

from gcattn.data.needle_tasks.wordings_evaluation import (
    EVALUATION_ASSIGNMENTS,
    EVALUATION_KEY_LISTS,
    EVALUATION_VALUE_LISTS,
    EVALUATION_WORDINGS,
)
from gcattn.data.needle_tasks.wordings_training import (
    TRAINING_ASSIGNMENTS,
    TRAINING_KEY_LISTS,
    TRAINING_VALUE_LISTS,
    TRAINING_WORDINGS,
)
from gcattn.data.words.split import Split

# words of a question that a wording may share with one of the other split, in a row
SHARED_WORDS = 3


@dataclass(frozen=True)
class Wording:
    """One way to state a value and to ask for it.

    Attributes:
        style: What kind of text it is from.
        noun: What the value is, in the singular; an "s" makes it plural.
        statement: Holds {key} and {value} once each.
        questions: Hold {key}; the value follows their last word.
    """

    style: str
    noun: str
    statement: str
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Assignment:
    """One way to hand values on from variable to variable, and to ask who holds one.

    Attributes:
        value: Says that {name} holds {value}.
        copy: Says that {name} holds what {other} does.
        question: Holds {value}; the names follow.
    """

    value: str
    copy: str
    question: str


class WordingSource(Protocol):
    """Where wordings come from: a list, or words of a text."""

    def draw(self, rng: Random) -> Wording:
        """Draw a way to state and ask."""

    def draw_value_list(self, rng: Random, wording: Wording) -> str:
        """Draw a question for all {nouns} of one {key}."""

    def draw_key_list(self, rng: Random, wording: Wording) -> str:
        """Draw a question for the {nouns} of several {keys}."""

    def draw_assignment(self, rng: Random) -> Assignment:
        """Draw a way to hand values on."""


@dataclass(frozen=True)
class Wordings:
    """All wordings of a split.

    Attributes:
        statements: Ways to state and ask.
        value_lists: Ask for all {nouns} of one {key}.
        key_lists: Ask for the {nouns} of several {keys}.
        assignments: Ways to hand values on.
    """

    statements: tuple[Wording, ...]
    value_lists: tuple[str, ...]
    key_lists: tuple[str, ...]
    assignments: tuple[Assignment, ...]

    def draw(self, rng: Random) -> Wording:
        """Draw a way to state and ask."""
        return rng.choice(self.statements)

    def draw_value_list(self, rng: Random, wording: Wording) -> str:
        """Draw a question for all values of one key."""
        return rng.choice(self.value_lists)

    def draw_key_list(self, rng: Random, wording: Wording) -> str:
        """Draw a question for the values of several keys."""
        return rng.choice(self.key_lists)

    def draw_assignment(self, rng: Random) -> Assignment:
        """Draw a way to hand values on."""
        return rng.choice(self.assignments)

    def texts(self) -> list[str]:
        """Return every text of them, placeholders included."""
        stated = [text for w in self.statements for text in (w.statement, *w.questions)]
        handed = [text for a in self.assignments for text in (a.value, a.copy, a.question)]
        return [*stated, *handed, *self.value_lists, *self.key_lists]


def wordings_of(split: Split) -> Wordings:
    """Return the wordings of a split."""
    training = split == "train"
    rows = TRAINING_WORDINGS if training else EVALUATION_WORDINGS
    assignments = TRAINING_ASSIGNMENTS if training else EVALUATION_ASSIGNMENTS
    return Wordings(
        tuple(Wording(row[0], row[1], row[2], row[3:]) for row in rows),
        TRAINING_VALUE_LISTS if training else EVALUATION_VALUE_LISTS,
        TRAINING_KEY_LISTS if training else EVALUATION_KEY_LISTS,
        tuple(Assignment(*row) for row in assignments),
    )
