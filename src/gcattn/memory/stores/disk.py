"""The tier "disk": keys and values are read from a file when they are retrieved.

The operating system's page cache keeps what was read recently as long as it has room; the chunks
that were read last also stay in host memory, up to a budget.

Shapes: n new chunks, U chunks asked for, S slots per chunk, G key/value heads, D head dim.
"""

from math import prod
from typing import Protocol

import torch
from torch import Tensor

from gcattn.memory.stores.recent import RecentChunks
from gcattn.memory.stores.scratch import ScratchFile, bytes_of
from gcattn.memory.stores.store import (
    ChunkReader,
    ChunkStore,
    GatheredChunks,
    NewChunks,
    host_tensor,
    split_pool,
)

# bytes of chunks that stay in host memory
BUDGET_BYTES = 2**28


class ChunkFile(Protocol):
    """One or more files from which chunks are read one by one."""

    shape: tuple[int, ...]  # [2, S, G, D]
    dtype: torch.dtype

    def __len__(self) -> int:
        """Return the number of chunks."""

    def lengths(self, numbers: Tensor) -> Tensor:
        """Return the tokens of chunks [U] on the CPU."""

    def read(self, number: int, out: Tensor) -> None:
        """Read a chunk into `out`, contiguous on the CPU."""

    def prefetch(self, number: int) -> None:
        """Ask the operating system to bring a chunk into its page cache."""


class DiskReader(ChunkReader):
    """Chunks of a file.

    Args:
        file: Where they are.
        device: Where the model is.
        budget_bytes: Bytes of chunks that stay in host memory.
    """

    def __init__(
        self, file: ChunkFile, device: torch.device, budget_bytes: int = BUDGET_BYTES
    ) -> None:
        self._file = file
        self._device = device
        self._recent = RecentChunks(budget_bytes)

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return len(self._file)

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place."""
        per_chunk = self._file.dtype.itemsize * prod(self._file.shape)
        return {"host": self._recent.num_bytes, "disk": per_chunk * self.num_chunks}

    def prefetch(self, numbers: Tensor) -> None:
        """Let the operating system read chunks [U] in the background."""
        for number in numbers.tolist():
            if self._recent.get(number) is None:
                self._file.prefetch(number)

    def gather(self, numbers: Tensor) -> GatheredChunks:
        """Read the chunks [U] that are not in host memory, and copy all of them to the device."""
        gathered = host_tensor((len(numbers), *self._file.shape), self._file.dtype)
        for place, number in enumerate(numbers.tolist()):
            known = self._recent.get(number)
            if known is None:
                self._file.read(number, gathered[place])
                self._recent.put(number, gathered[place].clone())
            else:
                gathered[place] = known
        lengths = self._file.lengths(numbers).to(self._device)
        return split_pool(gathered.to(self._device, non_blocking=True), lengths)


class DiskStore(ChunkStore):
    """Chunks of a stream in a temporary file that is gone when the process ends."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._file = ScratchChunks()
        self._reader = DiskReader(self._file, torch.device("cpu"), budget_bytes)

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return len(self._file)

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place."""
        return self._reader.num_bytes()

    def append(self, chunks: NewChunks) -> None:
        """Append chunks.

        Raises:
            DiskFullError: The disk is full.
        """
        self._reader._device = chunks.keys.device
        self._file.append(torch.stack([chunks.keys, chunks.values], dim=1), chunks.lengths)

    def truncate(self, num_chunks: int) -> None:
        """Drop all but the first `num_chunks`."""
        self._file.truncate(num_chunks)
        self._reader._recent.truncate(num_chunks)

    def prefetch(self, numbers: Tensor) -> None:
        """Let the operating system read chunks [U] in the background."""
        self._reader.prefetch(numbers)

    def gather(self, numbers: Tensor) -> GatheredChunks:
        """Read chunks [U] and copy them to the device."""
        return self._reader.gather(numbers)


class ScratchChunks:
    """Chunks in a scratch file; the list of offsets says which belong to this stream."""

    def __init__(self) -> None:
        self._scratch = ScratchFile()
        self._places: list[int] = []
        self._lengths: list[int] = []
        self.shape: tuple[int, ...] = (2, 0, 0, 0)
        self.dtype = torch.float32

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self, numbers: Tensor) -> Tensor:
        """Return the tokens of chunks [U]."""
        return torch.tensor([self._lengths[n] for n in numbers.tolist()], dtype=torch.long)

    def append(self, chunks: Tensor, lengths: Tensor) -> None:
        """Append chunks [n, 2, S, G, D]."""
        self.shape, self.dtype = tuple(chunks.shape[1:]), chunks.dtype
        at = self._scratch.write(bytes_of(chunks.cpu()))
        size = self.dtype.itemsize * prod(self.shape)
        self._places += range(at, at + len(chunks) * size, size)
        self._lengths += lengths.tolist()

    def truncate(self, num_chunks: int) -> None:
        """Drop all but the first `num_chunks`."""
        del self._places[num_chunks:]
        del self._lengths[num_chunks:]

    def read(self, number: int, out: Tensor) -> None:
        """Read a chunk into `out`."""
        self._scratch.read(self._places[number], bytes_of(out))

    def prefetch(self, number: int) -> None:
        """Ask the operating system to bring a chunk into its page cache."""
        self._scratch.prefetch(self._places[number], self.dtype.itemsize * prod(self.shape))
