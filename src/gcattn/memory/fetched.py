"""Chunks that were fetched, or are on their way, beside what the device computes.

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
    """Chunks of one fetch, where they are read."""

    numbers: Tensor  # [U], shared and stored ones
    chunks: GatheredChunks
    arrival: torch.cuda.Event | None = None  # they are on their way until then

    def arrived(self) -> Self:
        """Let what is computed from now on wait for the chunks."""
        if self.arrival is None:
            return self
        stream = torch.cuda.current_stream(self.chunks.keys.device)
        stream.wait_event(self.arrival)
        for x in self.chunks:
            x.record_stream(stream)  # it was allocated on another one
        return replace(self, arrival=None)


@lru_cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream on which chunks travel to a GPU."""
    return torch.cuda.Stream(device)
