"""The retriever of one group: a chunk's landmark asks which past chunks to read (paper, 3.1).

Shapes: B batch, F finished chunks, N chunks in the memory, K retrieved chunks, E hidden size.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gcattn.chunking import ChunkLayout, RegularLayout
from gcattn.memory.chunk_memory import ChunkSource
from gcattn.nn.rms_norm import RMSNorm
from gcattn.ops.chunk_topk import ChunkSelection, RetrievalNoise, Selection, chunk_topk

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class Retriever(nn.Module):
    """Score past chunks with the normed hidden state at the landmark and keep the best.

    Attributes:
        temperature_spread: While training, the scores of each landmark are divided by a
            temperature of its own between 1 / spread and spread, on top of the configuration's.
    """

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.score_scale = 1 / config.retrieval_temperature
        self.temperature_spread = 1.0
        self.selection: Selection = "random" if config.retrieval_method == "random" else "learned"
        self.is_off = config.retrieval_method == "off"

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
        queries = self.norm(layout.at_landmarks(hidden)) * self.score_scale  # [B, F, E]
        if self.training and self.temperature_spread > 1:
            # uniform on the scale of logarithms: sharper as often as flatter
            drawn = torch.rand(*queries.shape[:2], 1, device=queries.device) * 2 - 1
            queries = queries * self.temperature_spread ** drawn.to(queries.dtype)
        num_visible = layout.num_visible
        if self.is_off:
            num_visible = torch.zeros_like(num_visible)
        return chunk_topk(
            queries,
            memory.landmarks,
            num_visible,
            top_k,
            query_documents=layout.chunk_documents,
            landmark_documents=memory.documents,
            noise=noise,
            selection=self.selection,
        )
