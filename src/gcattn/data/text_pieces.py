"""Cutting of a text into parts that have, one after the other, the very ids of the whole.

A byte-level tokenizer first splits a text into words, and then looks at one word at a time. Where
a word ends before a blank and a letter follows, nothing on either side decides what the other side
becomes: a text can be cut there. That is proved for the tokenizers of this package; for others it
is tried out at every cut, on the text around it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# characters of a part; long enough for the encoder to be quick
PART_CHARACTERS = 2**16
# a text without any place to cut is cut all the same when it is this long
MOST_CHARACTERS = 2**22
# characters on either side that a cut is tried out on
_CONTEXT = 100
_TRIES = 20
# a letter or digit, then one blank before another; or, where words have no blanks, a full stop
_MARKS = " \n.,;:!?。、\uff0c\uff1b\uff1a\uff01\uff1f」』"
_ENDS_OF_WORDS = re.compile(rf"[^\W_][{_MARKS}]")
_PLACES = re.compile(rf"(?<=[^\W_])(?=[{_MARKS}][^\W_])")
_logger = logging.getLogger(__name__)


class TextCutter:
    """Cuts texts where a tokenizer gives the parts the ids of the whole.

    Args:
        tokenizer: What will encode the parts, special tokens spelled out being plain text, or be
            trained on them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        from tokenizers import Tokenizer

        state = tokenizer.to_str()
        self.can_cut = _splits_into_words(json.loads(state))
        # a copy, since one that is being trained lets nobody look into it
        copy = Tokenizer.from_str(state)
        self._normalizer, self._splitter = copy.normalizer, copy.pre_tokenizer

    def cut(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield parts that make up the text of `pieces`, in bounded memory.

        A tokenizer that looks at a text as a whole gets it whole. A text of four million characters
        without a word's end is cut there, with a warning: its ids differ at that place.
        """
        held = ""
        for piece in pieces:
            held += piece
            while self.can_cut and len(held) > PART_CHARACTERS:
                place = self._place(held)
                if place is None and len(held) >= MOST_CHARACTERS:
                    _logger.warning(
                        "A text has %d characters without the end of a word; it is cut there, and "
                        "the tokens at that place are not those of the whole.",
                        MOST_CHARACTERS,
                    )
                    place = MOST_CHARACTERS
                if place is None:
                    break
                yield held[:place]
                held = held[place:]
        if held:
            yield held

    def _place(self, text: str) -> int | None:
        """Return where a part may end, as near as can be to its length; None if nowhere."""
        for begin in range(PART_CHARACTERS // 2, len(text), PART_CHARACTERS // 2):
            end = min(begin + PART_CHARACTERS // 2, len(text))
            for match in _first(_PLACES.finditer(text, begin, end - 2), _TRIES):
                if self._holds(text, match.start()):
                    return match.start()
        return None

    def _holds(self, text: str, place: int) -> bool:
        left, right = text[max(0, place - _CONTEXT) : place], text[place : place + _CONTEXT]
        return self._words(left) + self._words(right) == self._words(left + right)

    def _words(self, text: str) -> list[str]:
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        return [word for word, _ in self._splitter.pre_tokenize_str(text)]


def _first(matches: Iterable[re.Match[str]], most: int) -> Iterator[re.Match[str]]:
    for _, match in zip(range(most), matches, strict=False):
        yield match


def _splits_into_words(state: dict[str, Any]) -> bool:
    """Tell whether a tokenizer looks at words one by one and leaves blanks where they are."""
    normalizer, splitter = state["normalizer"], state["pre_tokenizer"]
    if normalizer is not None and normalizer["type"] not in ("NFC", "NFD", "NFKC", "NFKD"):
        return False
    if splitter is None:
        return False
    splitters = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    by_words = any(
        part["type"] == "Split" or (part["type"] == "ByteLevel" and part["use_regex"])
        for part in splitters
    )
    known = all(
        part["type"] in ("Digits", "Split")
        or (part["type"] == "ByteLevel" and not part["add_prefix_space"])
        for part in splitters
    )
    return by_words and known and not any(map(_may_reach_across, state["added_tokens"]))


def _may_reach_across(token: dict[str, Any]) -> bool:
    """Tell whether a token that is taken out of a text before its words may span a cut."""
    if token["special"]:  # spelled out in a text, these are plain characters
        return False
    takes_more = token["lstrip"] or token["rstrip"] or token["single_word"]
    return takes_more or bool(_ENDS_OF_WORDS.search(token["content"]))
