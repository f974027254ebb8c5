"""Text with its origin: marks say on which line or page each span of it begins.

Shapes: m marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gcattn.data.text_pieces import TextCutter


@dataclass(frozen=True)
class MarkedText:
    """Some text of a document.

    Attributes:
        text: The characters.
        starts: First character of each span, int64 [m], ascending from 0.
        places: Line or page of each span, int32 [m].
    """

    text: str
    starts: np.ndarray
    places: np.ndarray

    @classmethod
    def of_lines(cls, text: str, first_line: int) -> MarkedText:
        """Mark every line of a text that begins on a given line."""
        code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        starts = np.concatenate([[0], np.flatnonzero(code_points == ord("\n")) + 1])
        places = np.arange(first_line, first_line + len(starts), dtype=np.int32)
        return cls(text, starts, places)

    @classmethod
    def joined(cls, stretches: Iterable[tuple[str, int]]) -> MarkedText:
        """Join spans of text, each with its place."""
        texts, places = [""], [0]
        for text, place in stretches:
            texts.append(text)
            places.append(place)
        ends = np.cumsum([len(text) for text in texts])
        starts = np.concatenate([[0], ends[:-1]])
        # the empty first span covers texts without any
        kept = slice(1, None) if len(texts) > 1 else slice(None)
        return cls("".join(texts), starts[kept], np.array(places[kept], dtype=np.int32))

    def place_of(self, characters: np.ndarray) -> np.ndarray:
        """Return the line or page of characters, given by their numbers, int32."""
        return self.places[np.searchsorted(self.starts, characters, side="right") - 1]


def cut(pieces: Iterable[MarkedText], cutter: TextCutter) -> Iterator[MarkedText]:
    """Cut a document into parts whose concatenated ids are those of the whole.

    Args:
        pieces: The document.
        cutter: Finds the places where its tokenizer allows a cut.
    """
    starts, places = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
    num_read = 0

    def texts() -> Iterator[str]:
        nonlocal starts, places, num_read
        for piece in pieces:
            starts = np.concatenate([starts, piece.starts + num_read])
            places = np.concatenate([places, piece.places])
            num_read += len(piece.text)
            yield piece.text

    begin = 0
    for text in cutter.cut(texts()):
        first = max(int(np.searchsorted(starts, begin, side="right")) - 1, 0)
        behind = int(np.searchsorted(starts, begin + len(text), side="left"))
        yield MarkedText(text, np.maximum(starts[first:behind] - begin, 0), places[first:behind])
        starts, places = starts[max(behind - 1, 0) :], places[max(behind - 1, 0) :]
        begin += len(text)
