"""The chunk memory: what the retriever scores and what Grouped Cross-Attention reads.

Landmarks are scored every S tokens and stay on the device, [B, N, E]. Keys and values are large and
read rarely: a store of the chosen tier keeps them, and rows refer to its chunks by number, so rows
with a common past (beams, forks) share chunks. The chunks of a memory that many streams share may
precede a row's own.

Shapes: B batch, N own chunks of the longest row, C blocks, K retrieved chunks, F chunks of one
call, P chunks in the store, U distinct chunks of one fetch, S slots per chunk, G key/value heads,
D head dim, E hidden size.
"""

from typing import Self

import torch
from torch import Tensor, nn

from gcattn.memory.carried import CarriedState, Snapshot
from gcattn.memory.choice import choose_with_shared
from gcattn.memory.chunk_rows import ChunkRows
from gcattn.memory.chunk_source import Choice, EncodedChunks, RetrievedChunks, select_by_scan
from gcattn.memory.fetched import RecentFetches
from gcattn.memory.numbered_chunks import NumberedChunks, no_chunks
from gcattn.memory.shared_chunks import SharedChunks
from gcattn.memory.stores import (
    ChunkStore,
    DeviceStore,
    GatheredChunks,
    MemoryTier,
    NewChunks,
    make_store,
)
from gcattn.memory.token_log import TokenLog
from gcattn.ops.chunk_topk import ChunkSelection

# chunks that `restore` hands to the store at a time: it may be larger than the device
RESTORED_AT_ONCE = 512


class ChunkMemory(CarriedState):
    """All finished chunks of a stream, for inference; gradients do not flow into it.

    Unlike other carried states it is extended in place: copying it for every chunk would cost
    more than the chunk.

    Args:
        store: Empty; where keys and values go.
        shared: Chunks that precede every row's own.
        expected_chunks: Chunks per row to allocate at once, rather than growing with a copy each
            time; more may follow.
    """

    def __init__(
        self, store: ChunkStore, shared: SharedChunks | None = None, expected_chunks: int = 0
    ) -> None:
        super().__init__()
        self.store = store
        self.shared = shared
        self._expected_chunks = expected_chunks
        self._fetches = RecentFetches(NumberedChunks(shared, store))
        self._rows = ChunkRows.empty(0, self._index_device)
        self._num_stored = 0
        self._like = torch.zeros(0)  # empty, [0, S, G, D]: dtype, device and sizes of chunks

    @property
    def num_chunks(self) -> Tensor:
        """Number of each row's own chunks, [B], on the CPU."""
        return self._rows.num_chunks

    @property
    def num_shared(self) -> int:
        """Number of shared chunks, which all rows see."""
        return 0 if self.shared is None else self.shared.num_chunks

    @property
    def is_ready(self) -> bool:
        """Whether shapes and rows are known: even an empty append counts."""
        return len(self._rows.num_chunks) > 0

    @property
    def landmarks(self) -> Tensor:
        """Landmarks of all own chunks, [B, N, E]."""
        return self._rows.landmarks

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the landmarks."""
        return self._rows.room_landmarks.dtype

    @property
    def documents(self) -> Tensor:
        """Document of each own chunk, [B, N]; -1 where the row has fewer chunks."""
        return self._rows.documents

    @property
    def store_index(self) -> Tensor:
        """Number in the store of each own chunk, [B, N]; 0 where the row has fewer chunks."""
        return self._rows.store_index

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk's keys and values on the device that reads them."""
        return 2 * self._like.shape[1:].numel() * self._like.element_size()

    @property
    def reads_in_place(self) -> bool:
        """Whether chunks are read in place, so that nothing is fetched."""
        return self.shared is None and isinstance(self.store, DeviceStore)

    @property
    def _index_device(self) -> torch.device | None:
        """Device on which places in the store are looked up; None for the landmarks' device."""
        return None if self.reads_in_place else torch.device("cpu")

    def bind(self, model: nn.Module) -> None:
        """Register the `DRTModel` that reads; one that did not make the shared chunks is refused.

        Raises:
            ValueError: The shared memory was made by other weights.
        """
        self.store.bind(model)
        if self.shared is not None:
            self.shared.bind(model)

    def append_logged(self, chunks: EncodedChunks, counts: Tensor, log: TokenLog) -> Self:
        """Append, with token ids if the store needs them; they are the last that were logged."""
        token_ids = None
        if self.store.needs_token_ids:
            first = self.num_chunks if self.is_ready else torch.zeros_like(counts)
            token_ids = log.ids_of_chunks(first, counts, chunks.keys.shape[2] - 1)
        return self.append(chunks, counts, token_ids)

    def append(
        self, chunks: EncodedChunks, counts: Tensor, token_ids: Tensor | None = None
    ) -> Self:
        """Add the first `counts` [B] (on the CPU) chunks of each row; returns the memory.

        Args:
            chunks: What a call finished.
            counts: Chunks of each row, [B].
            token_ids: Of all added chunks, row by row, [n, S - 1] on the CPU; for a store that
                needs them.
        """
        if not self.is_ready:
            self._rows = ChunkRows.empty(len(counts), self._index_device)
            self.store.expect(self._expected_chunks * len(counts))
        # no view of the keys: it would keep them alive
        self._like = chunks.keys.new_empty(0, *chunks.keys.shape[2:])
        self._rows, added = self._rows.extended(
            chunks, counts, self._num_stored, self._expected_chunks
        )
        self._num_stored += len(added.row)
        keys, values = (x[added.source].detach() for x in (chunks.keys, chunks.values))
        needs_previous = self.store.needs_token_ids
        self.store.append(
            NewChunks(
                keys.reshape(-1, *self._like.shape[1:]),
                values.reshape(-1, *self._like.shape[1:]),
                chunks.lengths[added.source].reshape(-1),
                token_ids,
                self._rows.previous(added.row, added.place) if needs_previous else None,
            )
        )
        return self

    def select(self, queries: Tensor, num_visible: Tensor, choice: Choice) -> ChunkSelection:
        """Choose chunks for queries [B, C, E] among the shared ones and the row's own."""
        landmarks, documents = self.landmarks, self.documents
        if self.shared is None or not queries.shape[1]:
            return select_by_scan(queries, landmarks, documents, num_visible, choice)
        return choose_with_shared(self.shared, queries, landmarks, documents, num_visible, choice)

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Copy the chunks [B, C, K] to the device that reads them."""
        numbers = self._numbers(indices.to(self._rows.room_index.device))
        B = indices.shape[0]
        if self.reads_in_place:
            assert isinstance(self.store, DeviceStore)
            # every row reads the same store: a pool without copies, its batch stride is zero
            keys, values, lengths = (x.expand(B, *x.shape) for x in self.store.all())
            return RetrievedChunks(keys, values, lengths, numbers, weights)
        distinct, inverse = numbers.unique(return_inverse=True)  # sorted, -1 first if present
        has_none = bool(len(distinct)) and int(distinct[0]) == -1
        places = inverse - 1 if has_none else inverse
        chunks = self._fetches.bring(distinct[1:] if has_none else distinct, self._like)
        keys, values, lengths = (x.expand(B, *x.shape) for x in chunks)
        return RetrievedChunks(keys, values, lengths, places.to(weights.device), weights)

    def prefetch(self, indices: Tensor) -> None:
        """Fetch chunks [B, K] (on the CPU) that the next call will read, in the background."""
        numbers = self._numbers(indices[:, None]).unique()
        self._fetches.prefetch(numbers[numbers >= 0], self._like)

    def _numbers(self, indices: Tensor) -> Tensor:
        return self._rows.stored_numbers(indices, self.num_shared)

    def select_rows(self, rows: Tensor) -> None:
        """Keep the given rows [B'] in their order; rows may repeat and then share their chunks."""
        if self.is_ready:
            self._rows = self._rows.selected(rows)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, without shared chunks."""
        if not self.is_ready:
            return {}
        stored = self.stored(0, self._num_stored)
        return {
            "num_chunks": self.num_chunks,
            "landmarks": self.landmarks,
            "documents": self.documents,
            "store_index": self.store_index,
            "keys": stored.keys,
            "values": stored.values,
            "lengths": stored.lengths,
        }

    def stored(self, first: int, end: int) -> GatheredChunks:
        """Return chunks of the store, whichever rows hold them."""
        if first < end and isinstance(self.store, DeviceStore):
            return GatheredChunks(*(x[first:end] for x in self.store.all()))
        if first < end:
            return self.store.gather(torch.arange(first, end))
        return no_chunks(self._like)

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restore what `tensors` returned into an empty memory, to be read on `device`.

        A store that needs token ids also finds "token_ids" [P, S - 1].
        """
        self._rows = ChunkRows(
            tensors["num_chunks"],
            self._index_device,
            tensors["landmarks"].to(device),
            tensors["documents"].to(device),
            tensors["store_index"].to(self._index_device or device),
        )
        self._like = tensors["keys"][:0].to(device)
        num_stored = len(tensors["keys"])
        token_ids = previous = None
        if self.store.needs_token_ids:
            token_ids, previous = tensors["token_ids"], self._rows.all_previous(num_stored)
        for at in range(0, num_stored, RESTORED_AT_ONCE):
            piece = slice(at, at + RESTORED_AT_ONCE)
            keys, values, lengths = (
                tensors[name][piece].to(device) for name in ("keys", "values", "lengths")
            )
            ids, before = (None if x is None else x[piece] for x in (token_ids, previous))
            self.store.append(NewChunks(keys, values, lengths, ids, before))
            self._num_stored += len(keys)

    def roll_back(self, before: Snapshot) -> None:
        """Return to where `snapshot` was taken; chunks appended since are forgotten."""
        super().roll_back(before)
        self.store.truncate(self._num_stored)
        self._rows.clear_unused()
        self._fetches.forget()

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place, "device", "host" and "disk"; landmarks and fetches included."""
        own = self.landmarks.numel() * self.landmarks.element_size() if self._rows.longest else 0
        own += self._fetches.num_bytes()
        stored = self.store.num_bytes()
        return {place: stored.get(place, 0) for place in ("host", "disk")} | {
            "device": own + stored.get("device", 0)
        }


def make_memory(
    tier: MemoryTier, expected_chunks: int = 0, shared: SharedChunks | None = None
) -> ChunkMemory:
    """Return an empty memory that keeps keys and values in the given tier.

    Args:
        tier: Of the stream's own chunks.
        expected_chunks: Per row; the device allocates them from the start.
        shared: Chunks that precede them.

    Raises:
        ValueError: There is no such tier.
    """
    return ChunkMemory(make_store(tier), shared, expected_chunks)
