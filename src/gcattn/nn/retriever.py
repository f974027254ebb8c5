"""The retriever of one group: a chunk's landmark asks which past chunks to read (paper, 3.1).

Shapes: B batch, F finished chunks, N chunks in the memory, K retrieved chunks, E hidden size.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gcattn.chunking import ChunkLayout, RegularLayout
from gcattn.memory.chunk_memory import ChunkSource
from gcattn.nn.rms_norm import RMSNorm
from gcattn.ops.chunk_topk import ChunkSelection, RetrievalNoise, Selection, chunk_topk

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class Retriever(nn.Module):
    """Score past chunks with the normed hidden state at the landmark and keep the best."""

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.score_scale = 1 / config.retrieval_temperature
        self.selection: Selection = "random" if config.retrieval_method == "random" else "learned"

    def forward(
        self,
        hidden: Tensor,
        layout: ChunkLayout | RegularLayout,
        memory: ChunkSource,
        *,
        top_k: int,
        noise: RetrievalNoise,
    ) -> ChunkSelection:
        """Choose chunks for each landmark of the call, indices and weights [B, F, K].

        A chunk sees the chunks before it in its document: never itself, never a later one.
        """
        return chunk_topk(
            self.norm(layout.at_landmarks(hidden)) * self.score_scale,  # [B, F, E]
            memory.landmarks,
            layout.num_visible,
            top_k,
            query_documents=layout.chunk_documents,
            landmark_documents=memory.documents,
            noise=noise,
            selection=self.selection,
        )
