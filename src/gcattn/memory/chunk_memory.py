"""The chunk memory: what the retriever scores and what Grouped Cross-Attention reads.

Landmarks are scored every S tokens and stay on the device, [B, N, E]. Keys and values are large and
read rarely: a store of the chosen tier keeps them, and rows refer to its chunks by number, so rows
with a common past (beams, forks) share chunks. The chunks of a memory that many streams share may
precede a row's own.

Shapes: B batch, N own chunks of the longest row, C blocks, K retrieved chunks, F chunks of one
call, P chunks in the store, U distinct chunks of one fetch, S slots per chunk, G key/value heads,
D head dim, E hidden size.
"""

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from gcattn.memory.carried import CarriedState, Snapshot
from gcattn.memory.choice import choose_behind
from gcattn.memory.chunk_source import Choice, EncodedChunks, RetrievedChunks, select_by_scan
from gcattn.memory.fetched import Fetched, side_stream
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
from gcattn.ops.pointwise import take_entries

# fetches to remember: about one for each retrieval group
RECENT_FETCHES = 4


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
        self._num_chunks = torch.zeros(0, dtype=torch.long)  # [B], on the CPU
        self._landmarks = torch.zeros(0)  # [B, capacity, E]
        self._documents = torch.zeros(0, dtype=torch.long)  # [B, capacity]
        self._store_index = torch.zeros(0, dtype=torch.long)  # [B, capacity], place in the store
        self._num_stored = 0
        self._fetched: list[Fetched] = []
        self._like = torch.zeros(0)  # no chunk, [0, S, G, D]

    @property
    def num_chunks(self) -> Tensor:
        """Number of each row's own chunks, [B], on the CPU."""
        return self._num_chunks

    @property
    def num_shared(self) -> int:
        """Number of shared chunks, which all rows see."""
        return 0 if self.shared is None else self.shared.num_chunks

    @property
    def is_ready(self) -> bool:
        """Whether shapes and rows are known: even an empty append counts."""
        return self._num_chunks.shape[0] > 0

    @property
    def landmarks(self) -> Tensor:
        """Landmarks of all own chunks, [B, N, E]."""
        return self._landmarks[:, : self._longest]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the landmarks."""
        return self._landmarks.dtype

    @property
    def documents(self) -> Tensor:
        """Document of each own chunk, [B, N]; -1 where the row has fewer chunks."""
        return self._documents[:, : self._longest]

    @property
    def store_index(self) -> Tensor:
        """Number in the store of each own chunk, [B, N]; 0 where the row has fewer chunks."""
        return self._store_index[:, : self._longest]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk's keys and values on the device that reads them."""
        return 2 * self._like.shape[1:].numel() * self._like.element_size()

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
            self._num_chunks = torch.zeros(len(counts), dtype=torch.long)
            self.store.expect(self._expected_chunks * len(counts))
        self._like = chunks.keys.detach()[0, :0]
        self._grow(chunks, int((self._num_chunks + counts).max()))
        number = torch.arange(chunks.landmarks.shape[1])
        row, new = (number < counts[:, None]).nonzero(as_tuple=True)
        place = self._num_chunks[row] + new
        device, end = chunks.landmarks.device, self._num_stored + len(row)
        stored = torch.arange(self._num_stored, end, device=self._store_index.device)
        first, added = set(self._num_chunks.tolist()), set(counts.tolist())
        if len(first) == len(added) == 1:  # the same places in all rows: nothing to look up
            (begin,), (count,) = first, added
            at: Any = (slice(None), slice(begin, begin + count))
            index_at = at
            new_at: Any = (slice(None), slice(count))
            stored = stored.view(len(counts), count)
        else:
            # a copy that blocks would wait for all that the device still computes
            at_row, at_new, at_place = (x.to(device, non_blocking=True) for x in (row, new, place))
            at, new_at = (at_row, at_place), (at_row, at_new)
            index_at = at if self._index_device is None else (row, place)
        self._num_stored = end
        self._num_chunks = self._num_chunks + counts
        self._store_index[index_at] = stored
        self._landmarks[at] = chunks.landmarks[new_at].detach()
        assert chunks.documents is not None  # only training leaves them out
        self._documents[at] = chunks.documents[new_at]
        keys, values = chunks.keys[new_at].detach(), chunks.values[new_at].detach()
        self.store.append(
            NewChunks(
                keys.reshape(-1, *self._like.shape[1:]),
                values.reshape(-1, *self._like.shape[1:]),
                chunks.lengths[new_at].reshape(-1),
                token_ids,
                self._previous(row, place) if self.store.needs_token_ids else None,
            )
        )
        return self

    def select(self, queries: Tensor, num_visible: Tensor, choice: Choice) -> ChunkSelection:
        """Choose chunks for queries [B, C, E] among the shared ones and the row's own."""
        landmarks, documents = self.landmarks, self.documents
        if self.shared is None or not queries.shape[1]:
            return select_by_scan(queries, landmarks, documents, num_visible, choice)
        return choose_behind(self.shared, queries, landmarks, documents, num_visible, choice)

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Copy the chunks [B, C, K] to the device that reads them."""
        numbers = self._numbers(indices.to(self._store_index.device))
        B = indices.shape[0]
        if self.reads_in_place:
            assert isinstance(self.store, DeviceStore)
            # every row reads the same store: a pool without copies, its batch stride is zero
            keys, values, lengths = (x.expand(B, *x.shape) for x in self.store.all())
            return RetrievedChunks(keys, values, lengths, numbers, weights)
        distinct, inverse = numbers.unique(return_inverse=True)  # sorted, -1 first if present
        has_none = bool(len(distinct)) and int(distinct[0]) == -1
        places = inverse - 1 if has_none else inverse
        keys, values, lengths = (
            x.expand(B, *x.shape) for x in self._bring(distinct[1:] if has_none else distinct)
        )
        return RetrievedChunks(keys, values, lengths, places.to(weights.device), weights)

    def prefetch(self, indices: Tensor) -> None:
        """Fetch chunks [B, K] (on the CPU) that the next call will read.

        On a GPU the copy overlaps with compute; elsewhere a slow source starts reading.
        """
        numbers = self._numbers(indices[:, None]).unique()
        numbers = numbers[numbers >= 0]
        readers = [self.store] if self.shared is None else [self.store, self.shared.reader]
        if self._like.is_cuda and all(reader.is_off_device for reader in readers):
            stream = side_stream(self._like.device)
            with torch.cuda.stream(stream):
                self._bring(numbers)
                arrival = stream.record_event()
            self._fetched[0] = replace(self._fetched[0], arrival=arrival)
            return
        shared = numbers < self.num_shared
        if self.shared is not None:
            self.shared.reader.prefetch(numbers[shared])
        self.store.prefetch(numbers[~shared] - self.num_shared)

    def select_rows(self, rows: Tensor) -> None:
        """Keep the given rows [B'] in their order; rows may repeat and then share their chunks."""
        if not self.is_ready:
            return
        self._num_chunks = self._num_chunks[rows.cpu()]
        self._landmarks = self._landmarks[rows.to(self._landmarks.device)]
        self._documents = self._documents[rows.to(self._documents.device)]
        self._store_index = self._store_index[rows.to(self._store_index.device)]

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, without shared chunks."""
        if not self.is_ready:
            return {}
        stored = self.stored(0, self._num_stored)
        return {
            "num_chunks": self._num_chunks,
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
        lengths = torch.zeros(0, dtype=torch.long, device=self._like.device)
        return GatheredChunks(self._like, self._like, lengths)

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restore what `tensors` returned into an empty memory, to be read on `device`.

        A store that needs token ids also finds "token_ids" [P, S - 1].
        """
        self._num_chunks = tensors["num_chunks"]
        self._landmarks = tensors["landmarks"].to(device)
        self._documents = tensors["documents"].to(device)
        self._store_index = tensors["store_index"].to(self._index_device or device)
        self._like = tensors["keys"][:0].to(device)
        token_ids = previous = None
        if self.store.needs_token_ids:
            token_ids, previous = tensors["token_ids"], torch.full((len(tensors["keys"]),), -1)
            row, place = (torch.arange(self._longest) < self._num_chunks[:, None]).nonzero(
                as_tuple=True
            )
            previous[self._store_index[row, place]] = self._previous(row, place)
        # in pieces: the store may be larger than the device
        for at in range(0, len(tensors["keys"]), 512):
            piece = slice(at, at + 512)
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
        longest = self._longest
        if longest:
            # rows shorter than the longest were written to within the kept range
            unused = torch.arange(longest) >= self._num_chunks[:, None]
            for held, nothing in (
                (self._landmarks, 0.0),
                (self._documents, -1),
                (self._store_index, 0),
            ):
                held[:, :longest][unused.to(held.device)] = nothing

    def __getstate__(self) -> dict[str, object]:
        """Leave out fetched chunks: a copy fetches its own."""
        return vars(self) | {"_fetched": []}

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place, "device", "host" and "disk"; landmarks and fetches included."""
        own = 0
        if self._longest:
            own = self.landmarks.numel() * self._landmarks.element_size()
        own += sum(x.numel() * x.element_size() for got in self._fetched for x in got.chunks[:2])
        stored = self.store.num_bytes()
        return {place: stored.get(place, 0) for place in ("host", "disk")} | {
            "device": own + stored.get("device", 0)
        }

    @property
    def reads_in_place(self) -> bool:
        """Whether chunks are read in place, so that nothing is fetched."""
        return self.shared is None and isinstance(self.store, DeviceStore)

    @property
    def _index_device(self) -> torch.device | None:
        """Device on which places in the store are looked up; None for the landmarks' device."""
        return None if self.reads_in_place else torch.device("cpu")

    @property
    def _longest(self) -> int:
        return int(self._num_chunks.max()) if self.is_ready else 0

    def _numbers(self, indices: Tensor) -> Tensor:
        """Turn a row's numbers of chunks, [B, C, K], into those of shared and stored chunks."""
        if not self.num_shared and self._longest:
            return take_entries(self._store_index, indices, -1)
        own = indices - self.num_shared
        if self._longest == 0:
            return torch.where(own < 0, indices, -1)
        rows = torch.arange(len(indices), device=indices.device)[:, None, None]
        stored = self._store_index[rows, own.clamp_min(0)] + self.num_shared
        return torch.where(own < 0, indices, stored)

    def _bring(self, numbers: Tensor) -> GatheredChunks:
        """Return shared and stored chunks [U], from the last fetches where possible."""
        for at, known in enumerate(self._fetched):
            if torch.equal(known.numbers, numbers):
                self._fetched[at] = known.arrived()
                return known.chunks
        is_shared = numbers < self.num_shared
        parts = []
        if self.shared is not None and bool(is_shared.any()):
            keys, values, lengths = self.shared.reader.gather(numbers[is_shared])
            # a memory in bfloat16 serves a model in float32, and the other way round
            dtype = self._like.dtype
            parts.append(GatheredChunks(keys.to(dtype), values.to(dtype), lengths))
        if not bool(is_shared.all()):
            parts.append(self.store.gather(numbers[~is_shared] - self.num_shared))
        if not parts:
            parts.append(self.stored(0, 0))
        chunks = parts[0]
        if len(parts) > 1:
            chunks = GatheredChunks(*(torch.cat(pair) for pair in zip(*parts, strict=True)))
        self._fetched = [Fetched(numbers, chunks), *self._fetched[: RECENT_FETCHES - 1]]
        return chunks

    def _previous(self, row: Tensor, place: Tensor) -> Tensor:
        """Return the stored number of the chunk before, of the same document; -1: none, [n]."""
        documents = self._documents.cpu()
        before = (place - 1).clamp_min(0)
        follows = (place > 0) & (documents[row, place] == documents[row, before])
        return torch.where(follows, self._store_index.cpu()[row, before], -1)

    def _grow(self, chunks: EncodedChunks, needed: int) -> None:
        B, _, E = chunks.landmarks.shape
        capacity = self._landmarks.shape[1] if self._landmarks.dim() == 3 else 0
        if needed <= capacity and capacity:
            return
        # doubling: each chunk is copied at most twice on average over the life of a stream
        capacity = max(needed, 2 * capacity, 16, self._expected_chunks)
        used = self._longest
        device = chunks.landmarks.device
        with torch.inference_mode(False):  # so that later calls can write in any mode
            landmarks = chunks.landmarks.new_zeros(B, capacity, E)
            documents = torch.full((B, capacity), -1, device=device)
            index = torch.zeros(B, capacity, dtype=torch.long, device=self._index_device or device)
        if used:
            landmarks[:, :used] = self._landmarks[:, :used]
            documents[:, :used] = self._documents[:, :used]
            index[:, :used] = self._store_index[:, :used]
        self._landmarks, self._documents, self._store_index = landmarks, documents, index


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
