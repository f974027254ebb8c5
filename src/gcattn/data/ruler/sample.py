"""What a RULER sample is, and the texts that its contexts are read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from gcattn.data.needle_tasks.phrases import TokenIds

# contexts are shorter than they may be by less than this, so that questions fall on any slot
LENGTH_SPREAD = 128


class ReadableText(Protocol):
    """A text of which any part can be read."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole text."""

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Return the token ids of positions [start, stop), int64."""


class FixedText:
    """A text that is whole in memory."""

    def __init__(self, token_ids: np.ndarray) -> None:
        self._token_ids = token_ids

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole text."""
        return len(self._token_ids)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Return the token ids of positions [start, stop), int64."""
        return self._token_ids[start:stop].astype(np.int64)


class RepeatedText:
    """The same few tokens over and over, without end: a haystack."""

    def __init__(self, token_ids: TokenIds) -> None:
        self._token_ids = np.array(token_ids, dtype=np.int64)

    @property
    def num_tokens(self) -> int:
        """Tokens before the text repeats itself."""
        return len(self._token_ids)

    def read(self, start: int, num_tokens: int) -> np.ndarray:
        """Return `num_tokens` token ids from position `start` on, int64."""
        return self._token_ids[np.arange(start, start + num_tokens) % len(self._token_ids)]


@dataclass(frozen=True)
class RulerSample:
    """A context to read, a question to ask after it, and what the answer must hold.

    Attributes:
        context: Instruction and text.
        prompt: The question and how the answer begins.
        references: Texts that the answer must hold.
        needs: Whether the score is the share of the references that the answer holds ("all"), or 1
            if it holds one of them ("any"), as for questions whose answer can be worded in ways.
        num_new_tokens: Tokens that may be written; they count towards the length.
    """

    context: ReadableText
    prompt: TokenIds
    references: tuple[str, ...]
    needs: Literal["all", "any"]
    num_new_tokens: int

    @property
    def num_tokens(self) -> int:
        """Tokens of context, question and what may be written."""
        return self.context.num_tokens + len(self.prompt) + self.num_new_tokens
