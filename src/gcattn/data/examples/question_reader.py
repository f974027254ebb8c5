"""Questions about documents: rows of a document, a question and its answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gcattn.data.examples.example import Example, Turn, question_turn
from gcattn.data.examples.records import read_records

_COLUMNS = ("document", "question", "answer")


def read_questions(source: str, *, split: str | None = None) -> Iterator[Example]:
    """Yield documents with their questions; rows in a row with one document are one example.

    A row holds "document", "question" and "answer", or "document" and "questions": a list of
    objects with "question" and "answer".

    Args:
        source: What `read_records` reads.
        split: Split to read, where the source has splits.

    Raises:
        FileNotFoundError: There is no such source.
        ValueError: A row lacks a column, or holds something other than text; answers of several
            lines have no end that can be told from the next line.
    """
    place, document = "", ""
    turns: list[Turn] = []
    for here, row in read_records(source, split):
        text = _text(here, row, "document")
        if turns and text != document:
            yield Example(place, document, tuple(turns), cuts=False)
            turns = []
        if not turns:
            place, document = here, text
        asked = row["questions"] if "questions" in row and "question" not in row else [row]
        if not isinstance(asked, list) or not all(isinstance(turn, dict) for turn in asked):
            raise ValueError(
                f"{here}: questions must be a list of objects with question and answer, got "
                f"{type(asked).__name__}."
            )
        turns += [
            question_turn(_text(here, turn, "question"), _line(here, turn, "answer"))
            for turn in asked
        ]
    if turns:
        yield Example(place, document, tuple(turns), cuts=False)


def _text(place: str, row: dict[str, Any], column: str) -> str:
    if column not in row:
        raise ValueError(
            f"{place} has no column {column!r}; expected {', '.join(_COLUMNS)}, got: "
            f"{', '.join(map(str, row))}."
        )
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        shown = "nothing" if value is None or value == "" else repr(value)[:60]
        raise ValueError(f"{place}: column {column!r} must hold text, got {shown}.")
    return value if column == "document" else value.strip()


def _line(place: str, row: dict[str, Any], column: str) -> str:
    answer = _text(place, row, column)
    if "\n" in answer:
        raise ValueError(f"{place}: an answer must be one line, got {answer[:60]!r}.")
    return answer
