"""What can be retrieved: landmarks to choose by, and chunks to read.

Shapes: B batch, N chunks in the pool, C blocks or querying chunks, F chunks of one call, K
retrieved chunks, S slots per chunk, G key/value heads, D head dim, E hidden size.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from gcattn.ops.chunk_topk import ChunkSelection, RetrievalNoise, Selection, chunk_topk


class RetrievedChunks(NamedTuple):
    """Chunks to read: a pool, and the indices and weights of each block's chunks."""

    keys: Tensor  # [B, N, S, G, D]
    values: Tensor  # [B, N, S, G, D]
    lengths: Tensor  # [B, N], slots in use
    # [B, C, K], -1 where nothing was retrieved; None: they are 0 … K - 1, and C = 1
    indices: Tensor | None
    weights: Tensor  # [B, C, K]


@dataclass(frozen=True)
class Choice:
    """How chunks are chosen; see `chunk_topk`."""

    top_k: int
    documents: Tensor | None = None  # of each query, [B, C]; None: whatever the document
    noise: RetrievalNoise = "none"
    selection: Selection = "learned"


class ChunkSource(Protocol):
    """What a retriever needs: to choose among chunks, and to read chunks by index."""

    @property
    def num_shared(self) -> int:
        """Number of shared chunks, which every query sees; they have the first indices."""

    def select(self, queries: Tensor, num_visible: Tensor, choice: Choice) -> ChunkSelection:
        """Choose chunks for queries [B, C, E] among the first `num_visible` [B, C] of each.

        These include all shared chunks or none. A row's own chunks are only visible to queries of
        the same document, if the choice names the queries' documents.
        """

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Copy the chunks [B, C, K] to the device that reads them."""


@dataclass(frozen=True)
class EncodedChunks:
    """The chunks finished by one call, as encoded: the memory used in training."""

    landmarks: Tensor  # [B, F, E]
    documents: Tensor | None  # [B, F], -1 where the row finished fewer; None: one document
    keys: Tensor  # [B, F, S, G, D]
    values: Tensor  # [B, F, S, G, D]
    lengths: Tensor  # [B, F]

    @property
    def num_shared(self) -> int:
        """0: each row sees its own chunks only."""
        return 0

    def select(self, queries: Tensor, num_visible: Tensor, choice: Choice) -> ChunkSelection:
        """Choose chunks for queries [B, C, E] among the first `num_visible` [B, C] of each."""
        return select_by_scan(queries, self.landmarks, self.documents, num_visible, choice)

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Read in place: the pool is what the encoder returned."""
        return RetrievedChunks(self.keys, self.values, self.lengths, indices, weights)


def select_by_scan(
    queries: Tensor,
    landmarks: Tensor,
    documents: Tensor | None,
    num_visible: Tensor,
    choice: Choice,
) -> ChunkSelection:
    """Choose by scoring all landmarks [B, N, E], on the model's device."""
    return chunk_topk(
        queries,
        landmarks,
        num_visible,
        choice.top_k,
        query_documents=choice.documents,
        landmark_documents=None if choice.documents is None else documents,
        noise=choice.noise,
        selection=choice.selection,
    )
