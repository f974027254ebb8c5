"""The tier "device": keys and values lie beside the model and are read in place.

Shapes: B batch, C blocks, K retrieved chunks, P chunks in the store, S slots per chunk,
G key/value heads, D head dim.
"""

import torch
from torch import Tensor

from gcattn.memory.chunk_memory import ChunkMemory, RetrievedChunks


class DeviceMemory(ChunkMemory):
    """Keys and values in one device tensor each, [P, S, G, D], grown by a quarter."""

    def __init__(self, expected_chunks: int = 0) -> None:
        super().__init__(expected_chunks)
        self._keys = self._values = torch.zeros(0)
        self._lengths = torch.zeros(0, dtype=torch.long)

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place; all on the device."""
        per_chunk = self._keys[:1].numel() * self._keys.element_size() * 2
        return {"device": self._landmark_bytes + per_chunk * self._num_stored, "host": 0}

    @property
    def _index_device(self) -> torch.device | None:
        return None

    def _store(self, keys: Tensor, values: Tensor, lengths: Tensor) -> None:
        start = self._num_stored - len(keys)
        if self._num_stored > len(self._lengths) or self._keys.dim() != keys.dim():
            # while it is copied the old tensor lives too: doubling would take three times its bytes
            expected = self._expected_chunks * len(self._num_chunks)
            capacity = max(self._num_stored, start + start // 4, 16, expected)
            self._keys = _grown(self._keys, keys, start, capacity)
            self._values = _grown(self._values, values, start, capacity)
            self._lengths = _grown(self._lengths, lengths, start, capacity)
        self._keys[start : self._num_stored] = keys
        self._values[start : self._num_stored] = values
        self._lengths[start : self._num_stored] = lengths

    def _stored(self) -> tuple[Tensor, Tensor, Tensor]:
        n = self._num_stored
        return self._keys[:n], self._values[:n], self._lengths[:n]

    def _read(self, stored: Tensor, weights: Tensor) -> RetrievedChunks:
        B = stored.shape[0]
        # every row reads the same store: a pool without copies, its batch stride is zero
        keys, values = (
            x[: self._num_stored].expand(B, -1, -1, -1, -1) for x in (self._keys, self._values)
        )
        lengths = self._lengths[: self._num_stored].expand(B, -1)
        return RetrievedChunks(keys, values, lengths, stored, weights)


def _grown(old: Tensor, like: Tensor, used: int, capacity: int) -> Tensor:
    with torch.inference_mode(False):  # so that later calls may write in any mode
        grown = like.new_empty(capacity, *like.shape[1:])
    if used:
        grown[:used] = old[:used]
    return grown
