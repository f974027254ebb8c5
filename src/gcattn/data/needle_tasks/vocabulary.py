"""What needles are made of: keys and values drawn from the vocabulary, apart for each split."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, get_args

from gcattn.data.needle_tasks.phrases import Phrases, TokenIds
from gcattn.data.needle_tasks.wordings import Wordings, wordings_of
from gcattn.data.words.split import Split, split_of
from gcattn.data.words.texts import Texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MIN_IDS = 64
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
        number_opening: The space before a number where it is a token of its own: it belongs to
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
        # without the wrapper's cost: a row of training holds hundreds of short texts
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        spaced, plain = self.encode(" 1"), self.encode("1")
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

    @cached_property
    def wordings(self) -> Wordings:
        """What statements and questions in anybody's words are worded with."""
        return wordings_of(self.split)

    @cached_property
    def texts(self) -> Texts:
        """Draws keys and values as text, words of one token each among them."""
        decode = self._backend.decode
        spaced = [decode([token]) for token in self.ids]
        common = [text[1:] for text in spaced if text[:1] == " " and text[1:].isalpha()]
        return Texts(self.split, [word for word in common if len(word) > 1])

    def encode(self, text: str) -> TokenIds:
        """Return the ids of a text."""
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """Return the text of some ids, special ones left out."""
        return str(self._backend.decode(ids))

    def encode_part(self, text: str, start: int, stop: int) -> tuple[TokenIds, int, int]:
        """Return the ids of a text, and which of them hold its characters [start, stop)."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        places = [
            place
            for place, (first, last) in enumerate(encoding.offsets)
            if first < stop and last > start
        ]
        return tuple(encoding.ids), places[0], places[-1] + 1

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
        """Draw a number of seven digits, to stand after `number_opening`."""
        space = "" if self.number_opening else " "
        while True:
            number = rng.randrange(10 ** (_DIGITS - 1), 10**_DIGITS)
            if split_of((number,)) == self.split:
                return self.encode(f"{space}{number}")

    def _draw(self, rng: Random, num_tokens: int) -> TokenIds:
        while True:
            ids = tuple(rng.choices(self.ids, k=num_tokens))
            if split_of(ids) == self.split:
                return ids
