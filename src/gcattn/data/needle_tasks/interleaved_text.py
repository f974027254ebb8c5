"""A text with sentences inserted into it, read in pieces without ever being whole in memory."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np

from gcattn.data.needle_tasks.haystack import EndlessText, join_parts
from gcattn.data.needle_tasks.phrases import TokenIds


class InterleavedText:
    """Part of a haystack with inserts.

    Args:
        haystack: The text around the inserts.
        start: Where in the haystack the text begins.
        num_haystack_tokens: How much of the haystack is read.
        inserts: Pairs of a gap (haystack tokens before the insert) and token ids. Inserts of one
            gap keep their order.

    Attributes:
        num_tokens: Tokens of the whole text.
        starts: Where each insert begins in the whole text, in the order of `inserts`.
    """

    def __init__(
        self,
        haystack: EndlessText,
        start: int,
        num_haystack_tokens: int,
        inserts: Sequence[tuple[int, TokenIds]],
    ) -> None:
        assert all(0 <= gap <= num_haystack_tokens for gap, _ in inserts)
        self._haystack = haystack
        self._start = start
        order = sorted(range(len(inserts)), key=lambda number: inserts[number][0])
        self.starts = [0] * len(inserts)
        inserted = 0
        self._inserts: list[tuple[int, int, TokenIds]] = []  # start, tokens inserted before, ids
        for number in order:
            gap, ids = inserts[number]
            self.starts[number] = gap + inserted
            self._inserts.append((gap + inserted, inserted, ids))
            inserted += len(ids)
        self._insert_stops = [start + len(ids) for start, _, ids in self._inserts]
        self._num_inserted = inserted
        self.num_tokens = num_haystack_tokens + inserted

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Return the token ids of positions [start, stop), int64."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"Tokens {start} to {stop} are outside [0, {self.num_tokens}].")
        parts = []
        place = start
        for number in range(bisect_left(self._insert_stops, start + 1), len(self._inserts)):
            begin, before, ids = self._inserts[number]
            if begin >= stop:
                break
            if place < begin:
                parts.append(self._text(place, begin, before))
                place = begin
            taken = ids[place - begin : stop - begin]
            parts.append(np.array(taken, dtype=np.int64))
            place += len(taken)
        if place < stop:
            parts.append(self._text(place, stop, self._inserted_before(place)))
        return join_parts(parts)

    def segments(self, segment_length: int) -> Iterator[np.ndarray]:
        """Yield the whole text in pieces of `segment_length` tokens, the last one shorter."""
        for start in range(0, self.num_tokens, segment_length):
            yield self.tokens(start, min(start + segment_length, self.num_tokens))

    def _text(self, start: int, stop: int, inserted: int) -> np.ndarray:
        return self._haystack.read(self._start + start - inserted, stop - start)

    def _inserted_before(self, place: int) -> int:
        """Count the inserted tokens before a position that is in no insert."""
        number = bisect_left(self._insert_stops, place + 1)
        return self._inserts[number][1] if number < len(self._inserts) else self._num_inserted
