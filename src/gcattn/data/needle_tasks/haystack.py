"""Text to hide needles in: token shards read from any place, around the end if need be."""

from typing import Protocol

import numpy as np

from gcattn.data.token_shards import TokenShards


class EndlessText(Protocol):
    """A text that can be read from any place on, as far as one likes."""

    @property
    def num_tokens(self) -> int:
        """Tokens before the text repeats itself."""

    def read(self, start: int, num_tokens: int) -> np.ndarray:
        """Return `num_tokens` token ids from position `start` on, int64."""


class Haystack:
    """An endless text made of a corpus; a context longer than the corpus reads it again.

    Args:
        shards: The corpus, of documents that end with their end-of-text token.

    Raises:
        ValueError: The corpus is empty.
    """

    def __init__(self, shards: TokenShards) -> None:
        if shards.num_tokens == 0:
            raise ValueError(f"{shards.folder} holds no text to hide needles in.")
        self.shards = shards

    @property
    def num_tokens(self) -> int:
        """Tokens before the text repeats itself."""
        return self.shards.num_tokens

    def beginning_before(self, position: int) -> int:
        """Return where the document of a position begins."""
        starts = self.shards.document_starts
        return int(starts[np.searchsorted(starts, position % self.num_tokens, side="right") - 1])

    def read(self, start: int, num_tokens: int) -> np.ndarray:
        """Return `num_tokens` token ids from position `start` on, int64."""
        parts = []
        place = start % self.num_tokens
        while num_tokens > 0:
            stop = min(place + num_tokens, self.num_tokens)
            parts.append(self.shards.tokens(place, stop).astype(np.int64))
            num_tokens -= stop - place
            place = 0
        return join_parts(parts)


def join_parts(parts: list[np.ndarray]) -> np.ndarray:
    """Join parts of a text, int64; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=np.int64), *parts])
