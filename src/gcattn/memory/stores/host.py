"""The tiers "host" and "host-int8": keys and values stay in host memory, and only what is
retrieved is copied to the device.

Shapes: n new chunks, U chunks asked for, S slots per chunk, G key/value heads, D head dim.
"""

import torch
from torch import Tensor

from gcattn.memory.stores.blocks import HostBlocks
from gcattn.memory.stores.store import ChunkStore, GatheredChunks, NewChunks, split_pool


class HostStore(ChunkStore):
    """Unchanged keys and values in host memory, pinned where there is a GPU.

    Args:
        device: The model's device; by default the one of the first chunks.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._chunks = HostBlocks()  # each [2, S, G, D], keys and values side by side
        self._lengths = HostBlocks()
        self._device = device

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return len(self._lengths)

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use."""
        return {"host": self._chunks.num_bytes}

    def append(self, chunks: NewChunks) -> None:
        """Append chunks."""
        self._device = self._device or chunks.keys.device
        self._chunks.append(torch.stack([chunks.keys, chunks.values], dim=1))
        self._lengths.append(chunks.lengths)

    def truncate(self, num_chunks: int) -> None:
        """Drop all but the first `num_chunks`."""
        self._chunks.truncate(num_chunks)
        self._lengths.truncate(num_chunks)

    def gather(self, numbers: Tensor) -> GatheredChunks:
        """Copy chunks [U] to the device."""
        chunks, lengths = (
            blocks.gather(numbers).to(self._device, non_blocking=True)
            for blocks in (self._chunks, self._lengths)
        )
        return split_pool(chunks, lengths)


class Int8HostStore(ChunkStore):
    """Keys and values in 8 bits, with a scale for every chunk and head.

    A value is off by at most half a step: 1 / 254 of the largest value of its head in the chunk.

    Args:
        device: The model's device; by default the one of the first chunks.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._codes = HostBlocks()  # each int8 [2, S, G, D]
        self._scales = HostBlocks()  # each float32 [2, 1, G, 1]
        self._lengths = HostBlocks()
        self._device = device
        self._dtype = torch.float32

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return len(self._lengths)

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use."""
        return {"host": self._codes.num_bytes + self._scales.num_bytes}

    def append(self, chunks: NewChunks) -> None:
        """Append chunks."""
        self._device, self._dtype = self._device or chunks.keys.device, chunks.keys.dtype
        codes, scales = quantize(torch.stack([chunks.keys, chunks.values], dim=1))
        self._codes.append(codes)
        self._scales.append(scales)
        self._lengths.append(chunks.lengths)

    def truncate(self, num_chunks: int) -> None:
        """Drop all but the first `num_chunks`."""
        for blocks in (self._codes, self._scales, self._lengths):
            blocks.truncate(num_chunks)

    def gather(self, numbers: Tensor) -> GatheredChunks:
        """Copy chunks [U] to the device in 8 bits, and widen them there."""
        codes, scales, lengths = (
            blocks.gather(numbers).to(self._device, non_blocking=True)
            for blocks in (self._codes, self._scales, self._lengths)
        )
        return split_pool((codes * scales).to(self._dtype), lengths)


def quantize(chunks: Tensor) -> tuple[Tensor, Tensor]:
    """Round chunks [n, 2, S, G, D] to int8; returns codes and scales [n, 2, 1, G, 1]."""
    scales = chunks.abs().amax(dim=(2, 4), keepdim=True).float() / 127
    # a head of zeros has no scale, and needs none
    codes = chunks / torch.where(scales > 0, scales, 1)
    return codes.round().clamp(-127, 127).to(torch.int8), scales
