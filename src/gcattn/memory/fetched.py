"""Chunks that have been fetched, or are being copied while the device computes.

Shapes: U chunks, S slots per chunk, G key/value heads, D head dim.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from gcattn.memory.numbered_chunks import NumberedChunks
from gcattn.memory.stores import GatheredChunks

# fetches to remember: about one for each retrieval group
RECENT_FETCHES = 4


class RecentFetches:
    """The last fetches of a stream, which its next calls mostly repeat.

    Args:
        chunks: Where chunks are fetched from.
    """

    def __init__(self, chunks: NumberedChunks) -> None:
        self._chunks = chunks
        self._fetched: list[Fetched] = []

    def bring(self, numbers: Tensor, like: Tensor) -> GatheredChunks:
        """Return chunks on the device, from the last fetches where possible.

        Args:
            numbers: Of the chunks, [U] on the CPU, distinct and ascending.
            like: An empty tensor in the model's dtype, [0, S, G, D].
        """
        for at, known in enumerate(self._fetched):
            if torch.equal(known.numbers, numbers):
                self._fetched[at] = known.arrived()
                return known.chunks
        chunks = self._chunks.gather(numbers, like)
        self._fetched = [Fetched(numbers, chunks), *self._fetched[: RECENT_FETCHES - 1]]
        return chunks

    def prefetch(self, numbers: Tensor, like: Tensor) -> None:
        """Fetch what the next call will `bring`.

        On a GPU the copy overlaps with compute; elsewhere a slow source starts reading.
        """
        if not (like.is_cuda and self._chunks.are_off_device):
            self._chunks.prefetch(numbers)
            return
        stream = _side_stream(like.device)
        with torch.cuda.stream(stream):
            self.bring(numbers, like)
            arrival = stream.record_event()
        self._fetched[0] = replace(self._fetched[0], arrival=arrival)

    def forget(self) -> None:
        """Forget the fetches: numbers may come to mean other chunks."""
        self._fetched = []

    def num_bytes(self) -> int:
        """Bytes of keys and values held on the device."""
        return sum(x.numel() * x.element_size() for got in self._fetched for x in got.chunks[:2])

    def __getstate__(self) -> dict[str, object]:
        """Leave out the fetches: a copy fetches its own."""
        return vars(self) | {"_fetched": []}


@dataclass(frozen=True)
class Fetched:
    """Chunks of one fetch, on the device that reads them."""

    numbers: Tensor  # [U], shared and stored ones
    chunks: GatheredChunks
    arrival: torch.cuda.Event | None = None  # set until the copy is complete

    def arrived(self) -> Self:
        """Make later computation wait for the chunks."""
        if self.arrival is None:
            return self
        stream = torch.cuda.current_stream(self.chunks.keys.device)
        stream.wait_event(self.arrival)
        for x in self.chunks:
            x.record_stream(stream)  # they were allocated on another stream
        return replace(self, arrival=None)


@lru_cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the CUDA stream on which chunks are copied."""
    return torch.cuda.Stream(device)
