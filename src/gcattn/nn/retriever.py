"""The retriever of one group: a chunk's landmark asks which past chunks to read (paper, 3.1).

Shapes: B batch, F finished chunks, N chunks in the memory, K retrieved chunks, E hidden size.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor, nn

from gcattn.chunking import ChunkLayout
from gcattn.memory.chunk_source import Choice, ChunkSource, EncodedChunks
from gcattn.nn.evidence import Evidence
from gcattn.nn.rms_norm import RMSNorm
from gcattn.ops.chunk_topk import ChunkSelection, RetrievalNoise, Selection
from gcattn.ops.chunk_topk.reference import visible_chunks

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


@dataclass(frozen=True)
class Retrieval:
    """How one call retrieves.

    Attributes:
        top_k: K, chunks that each landmark keeps; calls of one stream may differ in it.
        noise: "gumbel" adds random noise to the choice, to explore; weights stay noise-free.
        temperature_spread: The scores of each landmark are divided by a temperature of its own
            between 1 / spread and spread, on top of the configuration's; 1: none.
        across_documents: Every earlier chunk of a row may be chosen, whatever its document: the
            row's documents are those of a memory of files, and only retrieval crosses their ends.
        evidence: Takes the loss of every retriever, for calls without a cache.

    Raises:
        ValueError: A field is out of its range.
    """

    top_k: int
    noise: RetrievalNoise = "none"
    temperature_spread: float = 1.0
    across_documents: bool = False
    evidence: Evidence | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"retrieval's top_k must be at least 1, got {self.top_k}.")
        if self.noise not in get_args(RetrievalNoise):
            raise ValueError(f'retrieval\'s noise must be "gumbel" or "none", got {self.noise!r}.')
        if not 1 <= self.temperature_spread < float("inf"):
            raise ValueError(
                "retrieval's temperature_spread must be a number of at least 1 (none), "
                f"got {self.temperature_spread}."
            )


class Retriever(nn.Module):
    """Score past chunks with the normed hidden state at the landmark and keep the best."""

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.is_fixed = config.retrieval_method == "fixed"
        self.score_scale = 1 / config.retrieval_temperature
        self.selection: Selection = "random" if config.retrieval_method == "random" else "learned"
        self.is_off = config.retrieval_method == "off"

    def forward(
        self,
        hidden: Tensor,
        layout: ChunkLayout,
        memory: ChunkSource,
        retrieval: Retrieval,
        embeddings: Tensor | None = None,
    ) -> ChunkSelection:
        """Choose chunks for each landmark of the call, indices and weights [B, F, K].

        A chunk sees the chunks before it in its document, or in its row if retrieval crosses
        documents: never itself, never a later one.

        Args:
            hidden: Columns that enter the group, [B, L, E].
            layout: Their layout.
            memory: What is chosen from.
            retrieval: How.
            embeddings: Of the call's chunks, [B, F, P], where the retriever is fixed: a chunk asks
                with its own, and scores are cosines.

        Raises:
            ValueError: Evidence is given, and the call has a cache.
        """
        queries = self.norm(layout.at_landmarks(hidden)) * self.score_scale  # [B, F, E]
        if self.is_fixed:
            assert embeddings is not None  # the model embeds the chunks of such a retriever
            # scores are divided by the square root of the size; the norm takes part for nothing
            scale = embeddings.shape[-1] ** 0.5 * self.score_scale
            queries = embeddings.to(queries.dtype) * scale + 0 * queries.sum()
        num_visible = layout.num_visible
        if memory.num_shared:
            num_visible = num_visible + memory.num_shared * (layout.chunk_lengths > 0)
        if self.is_off:
            num_visible = torch.zeros_like(num_visible)
        documents = None if retrieval.across_documents else layout.chunk_documents
        if retrieval.evidence is not None:
            if not isinstance(memory, EncodedChunks):
                raise ValueError(
                    "retrieval's evidence needs a call without a cache; pass use_cache=False."
                )
            own = None if documents is None else memory.documents
            chunks = range(layout.num_finished_chunks)
            visible = visible_chunks(num_visible, documents, own, chunks)
            retrieval.evidence.add(queries, memory.landmarks, layout, visible)
        if retrieval.temperature_spread > 1:
            # uniform on the scale of logarithms: sharper as often as flatter
            drawn = torch.rand(*queries.shape[:2], 1, device=queries.device) * 2 - 1
            queries = queries * retrieval.temperature_spread ** drawn.to(queries.dtype)
        choice = Choice(retrieval.top_k, documents, retrieval.noise, self.selection)
        indices, weights = memory.select(queries, num_visible, choice)
        if self.training and not queries.shape[1]:
            weights = weights + queries.sum()  # of nothing: the norm takes part nevertheless
        return ChunkSelection(indices, weights)
