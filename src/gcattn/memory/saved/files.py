"""The parts of a memory as one sequence of chunks.

Shapes: N chunks, U chunks asked for, S slots per chunk, G key/value heads, D head dim, E hidden
size.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gcattn.memory.saved.documents import DocumentTable
from gcattn.memory.saved.part import Part
from gcattn.memory.stores.store import host_tensor

# threads that read landmarks, and chunks that are all loaded
READERS, LOADERS = 4, 8


class PartFiles:
    """Chunks of all parts by number; see `ChunkFile` and `TokenSource`.

    Args:
        parts: In their order.
        documents: Of the memory.
        shape: Of a chunk, [2, S, G, D].
        dtype: Of landmarks, keys and values.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        documents: DocumentTable,
        shape: tuple[int, ...],
        dtype: torch.dtype,
    ) -> None:
        self.parts = parts
        self.shape, self.dtype = shape, dtype
        self._documents = documents
        counts = [part.num_chunks for part in parts]
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, number: int) -> tuple[Part, int]:
        """Return a chunk's part, and its number within it."""
        n = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.parts[n], number - int(self.starts[n])

    def runs(self, first: int, end: int) -> Iterator[tuple[Part, int, int]]:
        """Yield the parts of chunks `first` … `end - 1`, with first and end within each part."""
        n = int(np.searchsorted(self.starts, first, side="right")) - 1
        while first < end:
            start, stop = int(self.starts[n]), int(self.starts[n + 1])
            if stop > first:
                yield self.parts[n], first - start, min(end, stop) - start
            first, n = max(first, stop), n + 1

    def read(self, number: int, out: Tensor) -> None:
        """Read a chunk into `out`, after checking its checksum."""
        part, at = self.locate(number)
        part.read_chunk(at, out)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Read all chunks in their order, one batch ahead of what is yielded.

        Args:
            size: Chunks of a batch.

        Yields:
            Chunks [n, 2, S, G, D], overwritten when the next are asked for, and their lengths [n].
        """
        firsts = range(0, max(len(self), 1), size)
        buffers = [host_tensor((min(size, len(self)), *self.shape), self.dtype) for _ in firsts[:2]]
        # reading and checking release the interpreter's lock
        with ThreadPoolExecutor(LOADERS) as threads:

            def begin(batch: int) -> list[Future[None]]:
                chunks = buffers[batch % 2][: len(self) - firsts[batch]]
                return [
                    threads.submit(self.read, firsts[batch] + n, chunk)
                    for n, chunk in enumerate(chunks)
                ]

            reading = begin(0)
            for batch, first in enumerate(firsts):
                here = reading
                reading = begin(batch + 1) if batch + 1 < len(firsts) else []
                for one in here:
                    one.result()
                numbers = torch.arange(first, first + len(here))
                yield buffers[batch % 2][: len(here)], self.lengths(numbers)

    def prefetch(self, number: int) -> None:
        """Ask the operating system to bring a chunk into its page cache."""
        part, at = self.locate(number)
        part.prefetch_chunk(at)

    def lengths(self, numbers: Tensor) -> Tensor:
        """Return the tokens of chunks [U]."""
        places = [self.locate(n) for n in numbers.tolist()]
        return torch.tensor([int(part.lengths[at]) for part, at in places], dtype=torch.long)

    def num_tokens(self, number: int) -> int:
        """Return the number of tokens of a chunk."""
        part, at = self.locate(number)
        return int(part.lengths[at])

    def texts(self, numbers: Sequence[int]) -> list[Tensor]:
        """Return the ids of each chunk, int64 [t]; those in a row are read and checked at once."""
        found: list[Tensor] = []
        begins = np.flatnonzero(np.diff(numbers, prepend=-2) != 1).tolist()
        for begin, stop in pairwise([*begins, len(numbers)]):
            for part, first, end in self.runs(numbers[begin], numbers[stop - 1] + 1):
                ids = torch.from_numpy(part.token_ids(first, end)).long()
                found += ids.split(part.lengths[first:end].tolist())
        return found

    def token_ids(self, number: int) -> Tensor:
        """Return the ids of a chunk, int64 [t]."""
        return self.texts([number])[0]

    def previous(self, number: int) -> int:
        """Return the number of the chunk before it in the document; -1 for the first."""
        before = self._documents.before[:, 0]
        return -1 if before[np.searchsorted(before, number)] == number else number - 1

    def landmarks(self, hidden_size: int, device: torch.device) -> Tensor:
        """Read all landmarks, [N, E], to the model's device; parts are read side by side."""
        landmarks = torch.empty(len(self), hidden_size, dtype=self.dtype, device=device)

        def read(part: Part, start: int) -> None:
            rows = landmarks[start : start + part.num_chunks]
            here = rows if rows.is_cpu else torch.empty_like(rows, device="cpu")
            part.read_landmarks(here)
            if here is not rows:
                rows.copy_(here)

        # reading and checking release the interpreter's lock
        with ThreadPoolExecutor(READERS) as threads:
            for _ in threads.map(read, self.parts, self.starts.tolist()):
                pass
        return landmarks
