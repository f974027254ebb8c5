"""Chunks that have been fetched, or are being copied while the device computes.

Shapes: U chunks.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from gcattn.memory.stores import GatheredChunks


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
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the CUDA stream on which chunks are copied."""
    return torch.cuda.Stream(device)
