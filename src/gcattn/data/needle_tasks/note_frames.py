"""What notes say of things, and how people ask for it: no run of four words is in both splits.

A block of a file is one note in several wordings, then questions: "year? When was {a} built?" asks
for what stands in place of {year}. {a} is a thing ("the copper kettle"), {A} the same at the
beginning of a sentence, {n} things in the plural, {p} a person and {t} a town; any other place is a
kind of value, "_2" behind it a second one of the kind.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gcattn.data.words.split import Split

_FILES = {"train": "note_frames_training.txt", "validation": "note_frames_evaluation.txt"}
_SHORT = {"n": "things", "p": "person", "t": "place"}


class Frame(NamedTuple):
    """Wordings of one note, and questions for the value in one place of it.

    Attributes:
        place: The place that is asked for, such as "year" or "year_2".
        statements: Hold that place once each; all say the same.
        questions: Hold no place that a statement lacks.
    """

    place: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


@cache
def frames_of(split: Split) -> tuple[Frame, ...]:
    """Return the frames of a split, read from its file once."""
    text = Path(__file__).with_name(_FILES[split]).read_text(encoding="utf-8")
    return tuple(frame for block in text.strip().split("\n\n") for frame in _read(block))


def places_in(text: str) -> list[str]:
    """Return the places of a sentence in their order."""
    return re.findall(r"\{(\w+)\}", text)


def kind_of(place: str) -> str:
    """Return the kind of value that stands in a place other than {a} and {A}."""
    return _SHORT.get(place, place.removesuffix("_2"))


def _read(block: str) -> list[Frame]:
    statements: list[str] = []
    questions: dict[str, list[str]] = {}
    for line in block.split("\n"):
        asked = re.match(r"(\w+)\? (.+)", line)
        if asked:
            questions.setdefault(asked[1], []).append(asked[2])
        else:
            statements.append(line)
    return [Frame(place, tuple(statements), tuple(asked)) for place, asked in questions.items()]
