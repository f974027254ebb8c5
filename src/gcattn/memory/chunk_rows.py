"""Which chunks each row has: their landmarks, their documents, and where the store keeps them.

Shapes: B batch, N chunks of the longest row, F chunks of one call, n chunks added by it, C blocks,
K retrieved chunks, E hidden size.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from gcattn.memory.chunk_source import EncodedChunks
from gcattn.ops.pointwise import take_entries

Place = tuple[Any, Any]  # indexes the first two dimensions


class Added(NamedTuple):
    """Where the chunks of a call come from and where they go."""

    row: Tensor  # [n], on the CPU
    place: Tensor  # [n], number in the row, on the CPU
    source: Place  # into the chunks of the call, [B, F]


@dataclass(frozen=True)
class ChunkRows:
    """The chunks of each row, in tensors with room for more.

    New chunks are written into that room in place. To undo an extension, take the value from before
    and `clear_unused`: nothing that it holds has been overwritten.
    """

    num_chunks: Tensor  # [B], on the CPU
    index_device: torch.device | None  # of `store_index`; None: that of the landmarks
    room_landmarks: Tensor  # [B, capacity, E]
    room_documents: Tensor  # [B, capacity]
    room_index: Tensor  # [B, capacity]

    @classmethod
    def empty(cls, B: int, index_device: torch.device | None) -> Self:
        """Return rows without chunks; the first extension decides dtype and size of landmarks."""
        counts, nothing = torch.zeros(B, dtype=torch.long), torch.zeros(0, dtype=torch.long)
        return cls(counts, index_device, torch.zeros(0), nothing, nothing)

    @property
    def longest(self) -> int:
        """N: chunks of the longest row."""
        return int(self.num_chunks.max()) if len(self.num_chunks) else 0

    @property
    def landmarks(self) -> Tensor:
        """Landmark of each chunk, [B, N, E]."""
        return self.room_landmarks[:, : self.longest]

    @property
    def documents(self) -> Tensor:
        """Document of each chunk, [B, N]; -1 where the row has fewer chunks."""
        return self.room_documents[:, : self.longest]

    @property
    def store_index(self) -> Tensor:
        """Number in the store of each chunk, [B, N]; 0 where the row has fewer chunks."""
        return self.room_index[:, : self.longest]

    def extended(
        self, chunks: EncodedChunks, counts: Tensor, first_number: int, capacity: int
    ) -> tuple[Self, Added]:
        """Add the first `counts` [B] (on the CPU) chunks of each row.

        Args:
            chunks: What a call finished.
            counts: Chunks of each row, [B].
            first_number: Number in the store of the first added chunk; they are stored row by row.
            capacity: Chunks to make room for at once.
        """
        rows = self._with_room(chunks.landmarks, int((self.num_chunks + counts).max()), capacity)
        number = torch.arange(chunks.landmarks.shape[1])
        row, new = (number < counts[:, None]).nonzero(as_tuple=True)
        place = self.num_chunks[row] + new
        device, index = chunks.landmarks.device, rows.room_index
        stored = torch.arange(first_number, first_number + len(row), device=index.device)
        first, added = set(self.num_chunks.tolist()), set(counts.tolist())
        at: Place
        index_at: Place
        source: Place
        if len(first) == len(added) == 1:  # the same places in all rows: slices will do
            (begin,), (count,) = first, added
            at = slice(None), slice(begin, begin + count)
            index_at = at
            source = slice(None), slice(count)
            stored = stored.view(len(counts), count)
        else:
            # a copy that blocks would wait for all that the device still computes
            at_row, at_new, at_place = (x.to(device, non_blocking=True) for x in (row, new, place))
            at, source = (at_row, at_place), (at_row, at_new)
            index_at = at if self.index_device is None else (row, place)
        index[index_at] = stored
        rows.room_landmarks[at] = chunks.landmarks[source].detach()
        assert chunks.documents is not None  # only training leaves them out
        rows.room_documents[at] = chunks.documents[source]
        return replace(rows, num_chunks=self.num_chunks + counts), Added(row, place, source)

    def _with_room(self, like: Tensor, needed: int, expected: int) -> Self:
        capacity = self.room_landmarks.shape[1] if self.room_landmarks.dim() == 3 else 0
        if needed <= capacity and capacity:
            return self
        B, _, E = like.shape
        # doubling: each chunk is copied at most twice on average over the life of a stream
        capacity = max(needed, 2 * capacity, 16, expected)
        used, device = self.longest, like.device
        with torch.inference_mode(False):  # so that later calls can write in any mode
            landmarks = like.new_zeros(B, capacity, E)
            documents = torch.full((B, capacity), -1, device=device)
            index = torch.zeros(B, capacity, dtype=torch.long, device=self.index_device or device)
        if used:
            landmarks[:, :used] = self.landmarks
            documents[:, :used] = self.documents
            index[:, :used] = self.store_index
        return replace(self, room_landmarks=landmarks, room_documents=documents, room_index=index)

    def selected(self, rows: Tensor) -> Self:
        """Return the given rows [B'] in their order; rows may repeat."""
        return replace(
            self,
            num_chunks=self.num_chunks[rows.cpu()],
            room_landmarks=self.room_landmarks[rows.to(self.room_landmarks.device)],
            room_documents=self.room_documents[rows.to(self.room_documents.device)],
            room_index=self.room_index[rows.to(self.room_index.device)],
        )

    def clear_unused(self) -> None:
        """Clear, in place, what has been written after the last chunk of shorter rows."""
        longest = self.longest
        if not longest:
            return
        unused = torch.arange(longest) >= self.num_chunks[:, None]
        for held, nothing in ((self.landmarks, 0.0), (self.documents, -1), (self.store_index, 0)):
            held[unused.to(held.device)] = nothing

    def stored_numbers(self, indices: Tensor, num_shared: int) -> Tensor:
        """Turn each row's numbers of chunks, [B, C, K], into those of shared and stored chunks.

        Args:
            indices: Shared chunks first, then the row's own; -1 for none.
            num_shared: Number of shared chunks.
        """
        if not num_shared and self.longest:
            return take_entries(self.room_index, indices, -1)
        own = indices - num_shared
        if self.longest == 0:
            return torch.where(own < 0, indices, -1)
        rows = torch.arange(len(indices), device=indices.device)[:, None, None]
        stored = self.room_index[rows, own.clamp_min(0)] + num_shared
        return torch.where(own < 0, indices, stored)

    def previous(self, row: Tensor, place: Tensor) -> Tensor:
        """Return the stored number of the chunk before, of the same document, [n]; -1: none."""
        documents = self.room_documents.cpu()
        before = (place - 1).clamp_min(0)
        follows = (place > 0) & (documents[row, place] == documents[row, before])
        return torch.where(follows, self.room_index.cpu()[row, before], -1)

    def all_previous(self, num_stored: int) -> Tensor:
        """Return `previous` of every stored chunk, [P]."""
        previous = torch.full((num_stored,), -1)
        row, place = (torch.arange(self.longest) < self.num_chunks[:, None]).nonzero(as_tuple=True)
        previous[self.room_index.cpu()[row, place]] = self.previous(row, place)
        return previous
