"""Keys and values as people write them: numbers, names, words, codes, dates and the like.

Which split a text belongs to follows from a hash of it, as for keys and values of token ids.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from random import Random

from gcattn.data.words.corpus_words import FIRST_NAMES, LAST_NAMES
from gcattn.data.words.ordinary_words import ADJECTIVES, MONTHS, NOUNS
from gcattn.data.words.split import Split, split_of_text

Parts = tuple[str, ...]

_CONSONANTS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "z",
    "br",
    "cr",
    "dr",
    "fl",
    "gr",
    "kl",
    "pl",
    "sh",
    "st",
    "th",
    "tr",
]
_VOWELS = (*"aeiou", "ai", "ea", "ou")
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_MOST_TOKENS = 8
# of several keys, how often the others differ from the first in one part alone
_SIMILAR_SHARE = 0.3
# tried before a text is looked for elsewhere
_TRIES = 1000


def _number(rng: Random) -> Parts:
    digits = rng.randint(1, 8)
    return (str(rng.randrange(10 ** (digits - 1), 10**digits)),)


def _uuid(rng: Random) -> Parts:
    return (str(uuid.UUID(int=rng.getrandbits(128), version=4)),)


def _hex(rng: Random) -> Parts:
    return (f"{rng.getrandbits(64):016x}"[: rng.randint(4, 10)],)


def _letters(rng: Random) -> Parts:
    return ("".join(rng.choices(_LETTERS, k=rng.randint(3, 6))),)


def _code(rng: Random) -> Parts:
    letters = "".join(rng.choices(_LETTERS, k=rng.randint(2, 3)))
    return (letters, "-", str(rng.randrange(10, 10_000)))


def _name(rng: Random) -> Parts:
    return (rng.choice(FIRST_NAMES), " ", rng.choice(LAST_NAMES))


def _date(rng: Random) -> Parts:
    day, month, year = rng.randint(1, 28), rng.choice(MONTHS), rng.randint(1500, 2099)
    return (str(day), " ", month, " ", str(year))


def _amount(rng: Random) -> Parts:
    return (f"{rng.randrange(1, 10_000)}.{rng.randrange(100):02d}",)


def _hyphenated(rng: Random) -> Parts:
    return (rng.choice(ADJECTIVES), "-", rng.choice(NOUNS))


def _words(rng: Random) -> Parts:
    words = rng.sample(NOUNS, rng.randint(1, 4))
    if rng.random() < 0.5:
        words[0] = rng.choice(ADJECTIVES)
    return _spaced(words)


def _address(rng: Random) -> Parts:
    street = rng.choice(NOUNS).capitalize()
    kind = rng.choice(("Street", "Road", "Lane", "Square"))
    return (str(rng.randint(1, 400)), " ", street, " ", kind)


def _made_up(rng: Random) -> Parts:
    words = []
    for _ in range(rng.randint(1, 2)):
        syllables = [
            rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.randint(2, 4))
        ]
        words.append("".join(syllables) + rng.choice(("", "n", "r", "s")))
    if rng.random() < 0.5:
        words = [word.capitalize() for word in words]
    return _spaced(words)


def _spaced(words: Sequence[str]) -> Parts:
    parts: Parts = (words[0],)
    for word in words[1:]:
        parts += (" ", word)
    return parts


KINDS: dict[str, Callable[[Random], Parts]] = {
    "number": _number,
    "uuid": _uuid,
    "hex": _hex,
    "letters": _letters,
    "code": _code,
    "name": _name,
    "date": _date,
    "amount": _amount,
    "hyphenated": _hyphenated,
    "words": _words,
    "address": _address,
    "made-up": _made_up,
}


class Texts:
    """Draws keys and values of one split; no text is in both.

    Args:
        split: "train" or "validation".
        common: Words that are one token each; one to eight of them are a kind of their own.
    """

    def __init__(self, split: Split, common: Sequence[str] = ()) -> None:
        self.split = split
        self._kinds = dict(KINDS)
        if common:
            self._kinds["tokens"] = lambda rng: _spaced(
                rng.choices(common, k=rng.randint(1, _MOST_TOKENS))
            )

    def draw_kind(self, rng: Random) -> str:
        """Draw a kind of key or value."""
        return rng.choice(list(self._kinds))

    def draw(self, rng: Random, kind: str, count: int = 1) -> list[str]:
        """Draw `count` different texts of a kind."""
        texts: dict[str, None] = {}
        while len(texts) < count:
            texts[self._one(rng, kind)] = None
        return list(texts)

    def draw_keys(self, rng: Random, kind: str, count: int) -> list[str]:
        """Draw different keys; at times they differ from the first in one part alone."""
        is_similar = count > 1 and rng.random() < _SIMILAR_SHARE
        if not is_similar:
            return self.draw(rng, kind, count)
        first = self._parts(rng, kind)
        keys: dict[str, None] = {"".join(first): None}
        tries = 0
        while len(keys) < count:
            other = self._kinds[kind](rng)
            tries += 1
            if len(first) > 1 and len(other) == len(first) and tries < _TRIES:
                kept = rng.randrange(0, len(first), 2)
                other = (*other[:kept], first[kept], *other[kept + 1 :])
            key = "".join(other)
            if split_of_text(key) == self.split:
                keys[key] = None
        return list(keys)

    def _one(self, rng: Random, kind: str) -> str:
        return "".join(self._parts(rng, kind))

    def _parts(self, rng: Random, kind: str) -> Parts:
        while True:
            parts = self._kinds[kind](rng)
            if split_of_text("".join(parts)) == self.split:
                return parts
