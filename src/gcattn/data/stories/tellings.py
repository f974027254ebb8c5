"""How each split words the relations of stories, read from its file.

A block of a file is one relation: its name, "of: " and the value as "the … of" somebody,
statements, then questions behind "? ". Every statement fits every question of its relation.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from gcattn.data.words.split import Split

_FILES = {"train": "tellings_training.txt", "validation": "tellings_evaluation.txt"}


class Telling(NamedTuple):
    """How one split words a relation.

    Attributes:
        statements: Hold {name} and {value}.
        questions: Hold {name}.
        of: The value as "the … of" somebody, for questions over two people; {name} stands for
            whose.
    """

    statements: tuple[str, ...]
    questions: tuple[str, ...]
    of: str


@cache
def tellings_of(split: Split) -> dict[str, Telling]:
    """Return the words of a split by relation, read from its file once."""
    text = Path(__file__).with_name(_FILES[split]).read_text(encoding="utf-8")
    return dict(_read(block) for block in text.strip().split("\n\n"))


def _read(block: str) -> tuple[str, Telling]:
    relation, of, *lines = block.split("\n")
    statements = tuple(line for line in lines if not line.startswith("? "))
    questions = tuple(line[2:] for line in lines if line.startswith("? "))
    return relation, Telling(statements, questions, of.removeprefix("of: "))
