"""What a column of text must be, and how its values come: in pieces, each of them whole UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

# bytes read at a time, and characters of a piece
PIECE = 2**20
_SHOWN_COLUMNS = 20


def pieces_of(place: str, text_column: str, value: Any) -> Iterator[str]:
    """Cut a text; leave out what is empty, refuse what is not a text.

    Raises:
        ValueError: The value is not a text, or holds half a character.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise ValueError(
            f"{place}: column {text_column!r} must hold text, got {type(value).__name__}; "
            "name another with --text-column."
        )
    for start in range(0, len(value), PIECE):
        yield checked_text(place, value[start : start + PIECE])


def check_column(place: str, text_column: str, columns: Iterable[str]) -> None:
    """Raise ValueError, naming the columns there are, unless `text_column` is one of them, once."""
    names = list(columns)
    if text_column not in names:
        raise ValueError(
            f"{place} has no column {text_column!r}; its columns are: {_some(names)}. "
            "Choose one with --text-column."
        )
    if names.count(text_column) > 1:
        raise ValueError(
            f"{place} has the column {text_column!r} {names.count(text_column)} times; which one "
            "is meant can't be told: rename or remove the others."
        )


def checked_text(place: str, text: str) -> str:
    """Refuse half a surrogate pair, which JSON can hold and no encoder takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: expected UTF-8 text ({error.reason}).") from error
    return text


def _some(names: list[str]) -> str:
    shown = [name if len(name) <= 40 else f"{name[:40]}…" for name in names[:_SHOWN_COLUMNS]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
