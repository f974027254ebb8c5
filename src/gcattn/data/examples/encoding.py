"""From an example to token ids and a mask of its answers: in training and in evaluation alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gcattn.data.examples.example import Example

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


class TooLongError(ValueError):
    """An example does not fit into a row, and must not be cut."""


@dataclass(frozen=True)
class EncodedTurn:
    """Token ids of a prompt and its answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of a document and its turns.

    Attributes:
        document: Cut at its end where it was too long and might be.
        turns: Prompts and answers; each piece is encoded on its own, as it is when a model is
            asked: what it writes begins where the prompt ends.
        is_cut: Whether the document lost its end.
    """

    document: np.ndarray
    turns: tuple[EncodedTurn, ...]
    is_cut: bool

    @property
    def num_tokens(self) -> int:
        """Tokens of document and turns."""
        return len(self.document) + sum(len(t.prompt) + len(t.answer) for t in self.turns)

    def token_ids(self) -> np.ndarray:
        """Return all ids, in order."""
        parts = [self.document]
        parts += [np.array([*t.prompt, *t.answer], dtype=np.int64) for t in self.turns]
        return np.concatenate(parts)

    def answer_mask(self, *, with_end: bool) -> np.ndarray:
        """Mark the tokens of answers, uint8 [num_tokens + 1]; the last is the end of the text."""
        parts = [np.zeros(len(self.document), dtype=np.uint8)]
        for turn in self.turns:
            parts += [
                np.zeros(len(turn.prompt), dtype=np.uint8),
                np.ones(len(turn.answer), dtype=np.uint8),
            ]
        return np.concatenate([*parts, np.array([with_end], dtype=np.uint8)])


def plain_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return the encoder of a tokenizer; special tokens spelled out in a text stay characters."""
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_truncation()
    return backend


def encode_example(backend: Tokenizer, example: Example, most_tokens: int | None) -> EncodedExample:
    """Encode an example into at most `most_tokens` tokens; None for as many as it has.

    Raises:
        TooLongError: It is longer and must not be cut, or its turns alone are longer.
    """

    def encode(text: str) -> tuple[int, ...]:
        return tuple(backend.encode(text, add_special_tokens=False).ids)

    turns = tuple(EncodedTurn(encode(turn.prompt), encode(turn.answer)) for turn in example.turns)
    document = np.array(encode(example.document), dtype=np.int64)
    encoded = EncodedExample(document, turns, is_cut=False)
    if most_tokens is None or encoded.num_tokens <= most_tokens:
        return encoded
    excess = encoded.num_tokens - most_tokens
    if not example.cuts or excess >= len(document):
        raise TooLongError(
            f"{example.place} takes {encoded.num_tokens:,} tokens, questions and answers included, "
            f"but only {most_tokens:,} have room; raise --sequence-length."
        )
    return EncodedExample(document[: len(document) - excess], turns, is_cut=True)
