"""The tier "host": keys and values wait in host memory, and only retrieved chunks travel.

Shapes: B batch, C blocks, K retrieved chunks, U distinct chunks of one fetch, S slots per chunk,
G key/value heads, D head dim.
"""

from itertools import pairwise

import torch
from torch import Tensor

from gcattn.memory.chunk_memory import ChunkMemory, RetrievedChunks

# block size doubles with the store, within these bounds: a fetch looks into few blocks, growth
# never copies what is stored, and pinning is paid seldom
LEAST_CHUNKS, MOST_CHUNKS = 256, 8192


class HostMemory(ChunkMemory):
    """Keys and values in blocks of host memory, pinned where there is a GPU."""

    def __init__(self, expected_chunks: int = 0) -> None:
        super().__init__(expected_chunks)
        self._blocks: list[Tensor] = []  # each [n, 2, S, G, D], keys and values together
        self._starts: list[int] = []  # number of the first chunk of each block
        self._lengths = torch.zeros(0, dtype=torch.long)
        self._none = torch.zeros(0)  # no chunks, [0, 2, S, G, D], for its shape and dtype
        self._device = torch.device("cpu")
        self._last: tuple[Tensor, Tensor, Tensor] | None = None  # numbers, chunks, lengths

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place; the last fetch counts as device memory."""
        per_chunk = self._none.shape[1:].numel() * self._none.element_size()
        fetched = len(self._last[0]) * per_chunk if self._last else 0
        return {"device": self._landmark_bytes + fetched, "host": per_chunk * self._num_stored}

    @property
    def _index_device(self) -> torch.device | None:
        return torch.device("cpu")

    def _store(self, keys: Tensor, values: Tensor, lengths: Tensor) -> None:
        self._none = keys.new_empty(0, 2, *keys.shape[1:], device="cpu")
        self._device = keys.device
        self._lengths = torch.cat([self._lengths, lengths.cpu()])
        chunks = torch.stack([keys, values], dim=1)  # [n, 2, S, G, D]
        at = self._num_stored - len(chunks)
        while len(chunks):
            if not self._blocks or at == self._starts[-1] + len(self._blocks[-1]):
                size = min(max(at, LEAST_CHUNKS), MOST_CHUNKS)
                self._blocks.append(_host_chunks(size, self._none))
                self._starts.append(at)
            free = self._blocks[-1][at - self._starts[-1] :]
            fitting = chunks[: len(free)]
            free[: len(fitting)].copy_(fitting)
            at, chunks = at + len(fitting), chunks[len(fitting) :]

    def _stored(self) -> tuple[Tensor, Tensor, Tensor]:
        chunks = torch.cat([self._none, *self._blocks])[: self._num_stored]
        return chunks[:, 0], chunks[:, 1], self._lengths

    def _read(self, stored: Tensor, weights: Tensor) -> RetrievedChunks:
        numbers, inverse = stored.unique(return_inverse=True)  # sorted, -1 first if present
        has_none = bool(len(numbers)) and int(numbers[0]) == -1
        indices = inverse - 1 if has_none else inverse
        chunks, lengths = self._bring(numbers[1:] if has_none else numbers)
        B = stored.shape[0]
        keys, values = (chunks[:, i].expand(B, -1, -1, -1, -1) for i in (0, 1))
        return RetrievedChunks(
            keys, values, lengths.expand(B, -1), indices.to(weights.device), weights
        )

    def _bring(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Copy chunks [U] to the device, unless they are those of the last fetch."""
        if self._last is not None and torch.equal(self._last[0], numbers):
            return self._last[1:]
        gathered = _host_chunks(len(numbers), self._none)
        # numbers ascend: those of a block follow each other
        bounds = torch.searchsorted(numbers, torch.tensor(self._starts)).tolist()
        places = pairwise([*bounds, len(numbers)])
        for block, start, (begin, end) in zip(self._blocks, self._starts, places, strict=True):
            if begin < end:
                here = numbers[begin:end] - start
                torch.index_select(block, 0, here, out=gathered[begin:end])
        chunks = gathered.to(self._device, non_blocking=True)
        self._last = numbers, chunks, self._lengths[numbers].to(self._device)
        return self._last[1:]


def _host_chunks(num_chunks: int, like: Tensor) -> Tensor:
    # pinning needs an accelerator; without one the device is the host and nothing travels
    pin = torch.cuda.is_available()
    with torch.inference_mode(False):  # so that later calls may write in any mode
        return torch.empty(num_chunks, *like.shape[1:], dtype=like.dtype, pin_memory=pin)
