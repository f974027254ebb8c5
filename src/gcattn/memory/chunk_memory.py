"""The chunk memory: what the retriever scores and what Grouped Cross-Attention reads.

Landmarks are scored every S tokens and stay on the device, [B, N, E]. Keys and values are large and
read rarely: each tier keeps them where it likes, as one store of chunks that rows refer to by
number, so rows that share a past (beams, forks) share its chunks.

Shapes: B batch, N chunks of the longest row, C blocks, K retrieved chunks, F chunks of one call,
P chunks in the store, S slots per chunk, G key/value heads, D head dim, E hidden size.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from gcattn.memory.carried import CarriedState, Snapshot
from gcattn.ops.chunk_topk import ChunkSelection, RetrievalNoise, Selection, chunk_topk


class RetrievedChunks(NamedTuple):
    """Chunks to read: a pool, and for every block which of its chunks and how much of each."""

    keys: Tensor  # [B, N, S, G, D]
    values: Tensor  # [B, N, S, G, D]
    lengths: Tensor  # [B, N], slots in use
    indices: Tensor  # [B, C, K], -1 where nothing was retrieved
    weights: Tensor  # [B, C, K]


class ChunkSource(Protocol):
    """What a retriever needs: landmarks to score, and chunks by index."""

    @property
    def landmarks(self) -> Tensor:
        """Landmarks of all chunks, [B, N, E]."""

    @property
    def documents(self) -> Tensor | None:
        """Document of each chunk, [B, N]; -1 where the row has fewer chunks; None: only one."""

    def select(self, queries: Tensor, num_visible: Tensor, choice: "Choice") -> ChunkSelection:
        """Choose chunks for queries [B, C, E] among the first `num_visible` [B, C] of each."""

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Bring the chunks [B, C, K] to where they are read."""


@dataclass(frozen=True)
class Choice:
    """How chunks are chosen; see `chunk_topk`."""

    top_k: int
    documents: Tensor | None = None  # of each query, [B, C]; with a memory of several documents
    noise: RetrievalNoise = "none"
    selection: Selection = "learned"


def select_by_scan(
    source: "ChunkSource", queries: Tensor, num_visible: Tensor, choice: Choice
) -> ChunkSelection:
    """Choose by scoring all landmarks of a source, which lie beside the model."""
    return chunk_topk(
        queries,
        source.landmarks,
        num_visible,
        choice.top_k,
        query_documents=choice.documents,
        landmark_documents=source.documents,
        noise=choice.noise,
        selection=choice.selection,
    )


@dataclass(frozen=True)
class EncodedChunks:
    """The chunks that one call finished, as the chunk encoder gave them: the memory of training."""

    landmarks: Tensor  # [B, F, E]
    documents: Tensor | None  # [B, F], -1 where the row finished fewer; None: one document
    keys: Tensor  # [B, F, S, G, D]
    values: Tensor  # [B, F, S, G, D]
    lengths: Tensor  # [B, F]

    def select(self, queries: Tensor, num_visible: Tensor, choice: Choice) -> ChunkSelection:
        """Choose chunks for queries [B, C, E] among the first `num_visible` [B, C] of each."""
        return select_by_scan(self, queries, num_visible, choice)

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Read in place: the pool is what the encoder returned."""
        return RetrievedChunks(self.keys, self.values, self.lengths, indices, weights)


class ChunkMemory(CarriedState, ABC):
    """All finished chunks of a stream, for inference; gradients do not flow into it.

    Unlike other carried states it is written into, behind what it holds: a copy for every chunk
    would cost more than the chunk.

    Args:
        expected_chunks: Chunks per row that room is taken for at once, rather than bit by bit with
            a copy each time; there may be more.
    """

    def __init__(self, expected_chunks: int = 0) -> None:
        super().__init__()
        self._expected_chunks = expected_chunks
        self._num_chunks = torch.zeros(0, dtype=torch.long)  # [B], on the CPU
        self._landmarks = torch.zeros(0)  # [B, capacity, E]
        self._documents = torch.zeros(0, dtype=torch.long)  # [B, capacity]
        self._store_index = torch.zeros(0, dtype=torch.long)  # [B, capacity], place in the store
        self._num_stored = 0

    @property
    def num_chunks(self) -> Tensor:
        """Chunks of each row, [B], on the CPU."""
        return self._num_chunks

    @property
    def is_ready(self) -> bool:
        """Whether shapes and rows are known: even an empty append counts."""
        return self._num_chunks.shape[0] > 0

    @property
    def landmarks(self) -> Tensor:
        """Landmarks of all chunks, [B, N, E]."""
        return self._landmarks[:, : self._longest]

    @property
    def documents(self) -> Tensor:
        """Document of each chunk, [B, N]; -1 where the row has fewer chunks."""
        return self._documents[:, : self._longest]

    def append(self, chunks: EncodedChunks, counts: Tensor) -> Self:
        """Add the first `counts` [B] (on the CPU) chunks of each row; returns the memory."""
        if not self.is_ready:
            self._num_chunks = torch.zeros(len(counts), dtype=torch.long)
        self._grow(chunks, int((self._num_chunks + counts).max()))
        number = torch.arange(chunks.landmarks.shape[1])
        row, new = (number < counts[:, None]).nonzero(as_tuple=True)
        place = self._num_chunks[row] + new
        stored = torch.arange(self._num_stored, self._num_stored + len(row))
        self._num_stored += len(row)
        self._num_chunks = self._num_chunks + counts

        self._store_index[row, place] = stored.to(self._store_index.device)
        device = chunks.landmarks.device
        row, new, place = row.to(device), new.to(device), place.to(device)
        self._landmarks[row, place] = chunks.landmarks[row, new].detach()
        assert chunks.documents is not None  # only training leaves them out
        self._documents[row, place] = chunks.documents[row, new]
        self._store(
            chunks.keys[row, new].detach(),
            chunks.values[row, new].detach(),
            chunks.lengths[row, new],
        )
        return self

    def select(self, queries: Tensor, num_visible: Tensor, choice: Choice) -> ChunkSelection:
        """Choose chunks for queries [B, C, E] among the first `num_visible` [B, C] of each."""
        return select_by_scan(self, queries, num_visible, choice)

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Bring the chunks [B, C, K] to where they are read."""
        here = indices.to(self._store_index.device)
        if self._longest == 0:
            stored = torch.full_like(here, -1)
        else:
            rows = torch.arange(here.shape[0], device=here.device)[:, None, None]
            stored = self._store_index[rows, here.clamp_min(0)].masked_fill(here < 0, -1)
        return self._read(stored, weights)

    def select_rows(self, rows: Tensor) -> None:
        """Keep the given rows [B'] in their order; rows may repeat and then share their chunks."""
        if not self.is_ready:
            return
        self._num_chunks = self._num_chunks[rows.cpu()]
        self._landmarks = self._landmarks[rows.to(self._landmarks.device)]
        self._documents = self._documents[rows.to(self._documents.device)]
        self._store_index = self._store_index[rows.to(self._store_index.device)]

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that is stored, by name."""
        if not self.is_ready:
            return {}
        keys, values, lengths = self._stored()
        return {
            "num_chunks": self._num_chunks,
            "landmarks": self.landmarks,
            "documents": self.documents,
            "store_index": self._store_index[:, : self._longest],
            "keys": keys,
            "values": values,
            "lengths": lengths,
        }

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Take what `tensors` returned into an empty memory; it is read on `device`."""
        self._num_chunks = tensors["num_chunks"]
        self._landmarks = tensors["landmarks"].to(device)
        self._documents = tensors["documents"].to(device)
        self._store_index = tensors["store_index"].to(self._index_device or device)
        # in pieces: the store may be larger than the device
        pieces = zip(
            *(tensors[name].split(512) for name in ("keys", "values", "lengths")), strict=True
        )
        for piece in pieces:
            self._num_stored += len(piece[0])
            self._store(*(x.to(device) for x in piece))

    def roll_back(self, before: Snapshot) -> None:
        """Return to where `snapshot` was taken; chunks appended since are forgotten."""
        super().roll_back(before)
        longest = self._longest
        if longest:
            # rows with fewer chunks than the longest were written into within its reach
            unused = torch.arange(longest) >= self._num_chunks[:, None]
            for held, nothing in (
                (self._landmarks, 0.0),
                (self._documents, -1),
                (self._store_index, 0),
            ):
                held[:, :longest][unused.to(held.device)] = nothing

    @abstractmethod
    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place, {"device": …, "host": …}; landmarks included."""

    @abstractmethod
    def _store(self, keys: Tensor, values: Tensor, lengths: Tensor) -> None:
        """Append chunks [n, S, G, D] and their lengths [n] to the store."""

    @abstractmethod
    def _read(self, stored: Tensor, weights: Tensor) -> RetrievedChunks:
        """Bring the chunks at `stored` [B, C, K] (-1: none) to where they are read."""

    @abstractmethod
    def _stored(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all keys and values [P, S, G, D] and lengths [P] of the store."""

    @property
    @abstractmethod
    def _index_device(self) -> torch.device | None:
        """Where the places in the store are looked up; None for the device of the landmarks."""

    @property
    def _longest(self) -> int:
        return int(self._num_chunks.max()) if self.is_ready else 0

    @property
    def _landmark_bytes(self) -> int:
        if not self._longest:
            return 0
        return self.landmarks.numel() * self._landmarks.element_size()

    def _grow(self, chunks: EncodedChunks, needed: int) -> None:
        B, _, E = chunks.landmarks.shape
        capacity = self._landmarks.shape[1] if self._landmarks.dim() == 3 else 0
        if needed <= capacity and capacity:
            return
        # doubling: a stream of N chunks is copied at most twice over in its life
        capacity = max(needed, 2 * capacity, 16, self._expected_chunks)
        used = self._longest
        device = chunks.landmarks.device
        with torch.inference_mode(False):  # so that later calls may write in any mode
            landmarks = chunks.landmarks.new_zeros(B, capacity, E)
            documents = torch.full((B, capacity), -1, device=device)
            index = torch.zeros(B, capacity, dtype=torch.long, device=self._index_device or device)
        if used:
            landmarks[:, :used] = self._landmarks[:, :used]
            documents[:, :used] = self._documents[:, :used]
            index[:, :used] = self._store_index[:, :used]
        self._landmarks, self._documents, self._store_index = landmarks, documents, index
