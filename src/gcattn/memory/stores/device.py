"""The tier "device": keys and values stay on the model's device and are read in place.

Shapes: B batch, P chunks in the store, n new chunks, U chunks asked for, S slots per chunk,
G key/value heads, D head dim.
"""

import torch
from torch import Tensor

from gcattn.memory.stores.store import ChunkStore, GatheredChunks, NewChunks


class DeviceStore(ChunkStore):
    """Keys and values in one device tensor each, [P, S, G, D], grown by a quarter."""

    is_off_device = False

    def __init__(self) -> None:
        self._expected_chunks = 0
        self._pool: tuple[Tensor, ...] = ()  # keys, values, lengths
        self._num_chunks = 0

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return self._num_chunks

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use, all on the device."""
        per_chunk = sum(x[:1].numel() * x.element_size() for x in self._pool[:2])
        return {"device": per_chunk * self._num_chunks}

    def expect(self, num_chunks: int) -> None:
        """Allocate space for this many chunks at once."""
        self._expected_chunks = num_chunks

    def append(self, chunks: NewChunks) -> None:
        """Append chunks."""
        start, end = self._num_chunks, self._num_chunks + len(chunks.keys)
        new = (chunks.keys, chunks.values, chunks.lengths)
        if not self._pool or end > len(self._pool[0]):
            # while it is copied the old tensor lives too: doubling would take three times its bytes
            capacity = max(end, start + start // 4, 16, self._expected_chunks)
            old = self._pool or tuple(x[:0] for x in new)
            self._pool = tuple(
                _grown(x, like, start, capacity) for x, like in zip(old, new, strict=True)
            )
        for held, x in zip(self._pool, new, strict=True):
            held[start:end] = x
        self._num_chunks = end

    def truncate(self, num_chunks: int) -> None:
        """Drop all but the first `num_chunks`."""
        self._num_chunks = num_chunks

    def all(self) -> GatheredChunks:
        """Return every chunk in place, without a copy."""
        return GatheredChunks(*(x[: self._num_chunks] for x in self._pool))

    def gather(self, numbers: Tensor) -> GatheredChunks:
        """Copy chunks [U]."""
        here = numbers.to(self._pool[0].device)
        return GatheredChunks(*(x[here] for x in self._pool))


def _grown(old: Tensor, like: Tensor, used: int, capacity: int) -> Tensor:
    with torch.inference_mode(False):  # so that later calls can write in any mode
        grown = like.new_empty(capacity, *like.shape[1:])
    if used:
        grown[:used] = old[:used]
    return grown
