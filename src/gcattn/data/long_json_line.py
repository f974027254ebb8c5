"""The text of one long line of a jsonl file, in pieces: the line is never whole in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

# whole characters and escapes of a JSON string, up to its end or to what is not yet there
_UNITS = re.compile(r'(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+')
_HALF_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}")
_HALF_PAIR_LENGTH = 6
_PLAIN = re.compile(r"[^\s,:{}\[\]\"]*")
_SPACE = re.compile(r"[ \t\r\n]*")


class LongJsonObject:
    """A JSON object whose text is asked for by key, read from chunks of it.

    What is skipped on the way is held to be well-formed once its strings and brackets are.

    Args:
        chunks: The characters of the line.

    Raises:
        ValueError: The line is not a JSON object, or it ends too early.
    """

    def __init__(self, chunks: Iterable[str]) -> None:
        self._chunks = iter(chunks)
        self._buffer = ""
        self._at = 0
        self.keys: list[str] = []

    def text(self, key: str) -> Iterator[str]:
        """Yield the value of `key` in pieces; read on to the end of the object.

        Nothing is yielded where the value is null or empty, or the key is not there (`keys` says).
        """
        if self._next() != "{":
            raise ValueError("expected a JSON object")
        self._at += 1
        while self._next() != "}":
            if self.keys and self._take(",") and self._next() == "}":
                raise ValueError("a comma before }")
            name = "".join(self._string())
            self._take(":")
            if name == key and name in self.keys:
                raise ValueError(f"the key {key!r} comes twice")
            self.keys.append(name)
            if name == key:
                yield from self._value(key)
            else:
                self._skip()
        self._at += 1
        if self._next(needed=False):
            raise ValueError("more text after the object")

    def _value(self, key: str) -> Iterator[str]:
        if self._next() == '"':
            yield from self._string()
            return
        kind = self._next()
        if kind in "{[" or self._plain() != "null":
            raise ValueError(f"column {key!r} must hold text; name another with --text-column")

    def _string(self) -> Iterator[str]:
        self._take('"')
        while True:
            match = _UNITS.match(self._buffer, self._at)
            assert match is not None
            stop = match.end()
            if self._buffer[stop : stop + 1] == '"':
                yield json.loads(f'"{self._buffer[self._at : stop]}"')
                self._at = stop + 1
                return
            if self._ends_with_half_pair(stop):
                stop -= _HALF_PAIR_LENGTH
            if stop > self._at:
                yield json.loads(f'"{self._buffer[self._at : stop]}"')
                self._at = stop
            # half a pair and an escape that is not yet whole
            if len(self._buffer) - self._at > 2 * _HALF_PAIR_LENGTH or not self._read():
                raise ValueError("a string with a bad escape or without an end")

    def _ends_with_half_pair(self, stop: int) -> bool:
        """Tell whether the other half of a character may begin at `stop`."""
        start = stop - _HALF_PAIR_LENGTH
        if start < self._at or not _HALF_PAIR.fullmatch(self._buffer, start, stop):
            return False
        before = self._buffer[self._at : start]
        # after an odd number of backslashes this one is a backslash of the text
        return (len(before) - len(before.rstrip("\\"))) % 2 == 0

    def _skip(self) -> None:
        depth = 0
        while True:
            letter = self._next()
            if letter == '"':
                for _ in self._string():
                    pass
            elif letter in "{[":
                depth += 1
                self._at += 1
            elif letter in "}]" and depth:
                depth -= 1
                self._at += 1
            elif letter in ",:" and depth:
                self._at += 1
            elif not self._plain():
                raise ValueError(f"{letter!r} where a value was expected")
            if depth == 0:
                return

    def _plain(self) -> str:
        """Take a number or a word."""
        taken = ""
        while True:
            match = _PLAIN.match(self._buffer, self._at)
            assert match is not None
            taken += match.group()
            self._at = match.end()
            if self._at < len(self._buffer) or not self._read():
                return taken

    def _take(self, letter: str) -> bool:
        found = self._next()
        if found != letter:
            raise ValueError(f"expected {letter!r}, found {found!r}")
        self._at += 1
        return True

    def _next(self, *, needed: bool = True) -> str:
        """Return the next letter that is no space, without taking it."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._read():
                if needed:
                    raise ValueError("the line ends too early")
                return ""

    def _read(self) -> bool:
        """Drop what was taken and read one more chunk."""
        chunk = next(self._chunks, None)
        self._buffer = self._buffer[self._at :] + (chunk or "")
        self._at = 0
        return chunk is not None
