"""Where the keys and values of chunks are kept: one interface for every tier.

A store numbers chunks in the order in which they were added. Rows, landmarks and documents are the
business of the chunk memory.

Shapes: n new chunks, U chunks asked for, S slots per chunk, G key/value heads, D head dim.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class NewChunks(NamedTuple):
    """Chunks to store, as the encoder produced them."""

    keys: Tensor  # [n, S, G, D]
    values: Tensor  # [n, S, G, D]
    lengths: Tensor  # [n], tokens of each
    token_ids: Tensor | None = None  # [n, S - 1] on the CPU, -1 where not known
    previous: Tensor | None = None  # [n] on the CPU, number of the chunk before in its document; -1


class GatheredChunks(NamedTuple):
    """Chunks on the device that reads them."""

    keys: Tensor  # [U, S, G, D]
    values: Tensor  # [U, S, G, D]
    lengths: Tensor  # [U]


class ChunkReader(ABC):
    """Read access to chunks by number."""

    # whether chunks come from the host, so that copying them can overlap with compute
    is_off_device = True

    @property
    @abstractmethod
    def num_chunks(self) -> int:
        """Number of chunks."""

    @abstractmethod
    def gather(self, numbers: Tensor) -> GatheredChunks:
        """Copy chunks to the model's device.

        Args:
            numbers: Of the chunks, [U] on the CPU, distinct and ascending.
        """

    @abstractmethod
    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place, "device", "host" and "disk"; empty places may be left out."""

    def prefetch(self, numbers: Tensor) -> None:  # noqa: B027
        """Announce that these chunks [U] will be read; a tier with a slow source fetches them."""

    def bind(self, model: nn.Module) -> None:  # noqa: B027
        """Register the `DRTModel` that reads; a tier that recomputes chunks runs it."""


class ChunkStore(ChunkReader):
    """Chunks by number, for appending and reading."""

    # whether `append` must be given token ids and previous chunks
    needs_token_ids = False

    def expect(self, num_chunks: int) -> None:
        """Allocate space for this many chunks at once, where that saves copies; more may follow."""

    @abstractmethod
    def append(self, chunks: NewChunks) -> None:
        """Append chunks."""

    @abstractmethod
    def truncate(self, num_chunks: int) -> None:
        """Drop all but the first `num_chunks`, including what a failed append left behind."""


def split_pool(chunks: Tensor, lengths: Tensor) -> GatheredChunks:
    """Return keys and values of chunks that lie side by side, [U, 2, S, G, D]."""
    return GatheredChunks(chunks[:, 0], chunks[:, 1], lengths)


def host_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an empty tensor in host memory, pinned where there is a GPU to copy from it."""
    with torch.inference_mode(False):  # so that later calls can write in any mode
        return torch.empty(shape, dtype=dtype, pin_memory=torch.cuda.is_available())
