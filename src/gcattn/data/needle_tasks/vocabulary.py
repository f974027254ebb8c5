"""What needles are made of: keys and values drawn from the vocabulary, apart for each split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING, get_args

from gcattn.data.needle_tasks.phrases import Phrases, TokenIds
from gcattn.data.synthetic_facts import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MIN_IDS = 64
# one in this many keys, values and numbers belongs to validation, the others to training
_VALIDATION_SHARE = 4
_DIGITS = 7


class NeedleVocabulary:
    """Draws keys, values and numbers of one split; no key or value is in both splits.

    Keys and values are uniform over all tokens but special ones, those in `excluded_ids` and those
    that the phrases hold: so they never end a sentence or imitate one. Which split a key or value
    belongs to follows from a hash of its ids, so it is the same in every run and on every machine.

    Args:
        tokenizer: Encodes phrases and numbers.
        split: "train" or "validation".
        excluded_ids: Ids that never occur in text, such as a model's landmark.
        key_tokens: Tokens of a key.
        value_tokens: Tokens of a value.

    Raises:
        ValueError: The split is unknown, a length is too small, or the tokenizer cannot write the
            phrases or has too few tokens.

    Attributes:
        phrases: The words around keys and values.
        number_opening: The space in front of a number where it is a token of its own: it belongs to
            the question, or the first token of every answer would be known beforehand.
        special_ids: What never occurs in needles.
        ids: The tokens that keys and values are drawn from, in ascending order.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        split: Split,
        *,
        excluded_ids: Iterable[int] = (),
        key_tokens: int = 2,
        value_tokens: int = 5,
    ) -> None:
        if split not in get_args(Split):
            raise ValueError(f"split must be one of {get_args(Split)}, got {split!r}.")
        if key_tokens < 2 or value_tokens < 2:
            raise ValueError(
                "key_tokens and value_tokens must be at least 2, or training would soon have seen "
                f"every key, got {key_tokens} and {value_tokens}."
            )
        self.split = split
        self.key_tokens = key_tokens
        self.value_tokens = value_tokens
        self.phrases = Phrases.encode(tokenizer)
        self._tokenizer = tokenizer
        spaced, plain = self._encode(" 1"), self._encode("1")
        is_apart = len(spaced) > len(plain) and spaced[-len(plain) :] == plain
        self.number_opening = spaced[: -len(plain)] if is_apart else ()
        self.special_ids = frozenset(
            {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder, *excluded_ids}
        )
        forbidden = self.special_ids | self.phrases.token_ids()
        self.ids = sorted(set(tokenizer.get_vocab().values()) - forbidden)
        if len(self.ids) < MIN_IDS:
            raise ValueError(
                f"The tokenizer has {len(self.ids)} tokens for keys and values, at least {MIN_IDS} "
                "are needed."
            )

    def draw_keys(self, rng: Random, count: int) -> list[TokenIds]:
        """Draw `count` different keys."""
        keys: dict[TokenIds, None] = {}
        while len(keys) < count:
            keys[self._draw(rng, self.key_tokens)] = None
        return list(keys)

    def draw_value(self, rng: Random) -> TokenIds:
        """Draw a value."""
        return self._draw(rng, self.value_tokens)

    def draw_number(self, rng: Random) -> TokenIds:
        """Draw a number of seven digits, to stand behind `number_opening`."""
        space = "" if self.number_opening else " "
        while True:
            number = rng.randrange(10 ** (_DIGITS - 1), 10**_DIGITS)
            if split_of((number,)) == self.split:
                return self._encode(f"{space}{number}")

    def _encode(self, text: str) -> TokenIds:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _draw(self, rng: Random, num_tokens: int) -> TokenIds:
        while True:
            ids = tuple(rng.choices(self.ids, k=num_tokens))
            if split_of(ids) == self.split:
                return ids


def split_of(ids: TokenIds) -> Split:
    """Return the split that a key, a value or a number belongs to."""
    digest = hashlib.blake2b(b"".join(i.to_bytes(8, "little") for i in ids), digest_size=8)
    is_validation = int.from_bytes(digest.digest(), "little") % _VALIDATION_SHARE == 0
    return "validation" if is_validation else "train"
