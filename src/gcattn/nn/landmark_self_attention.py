"""Landmark Attention as the self-attention of a decoder layer, a peer of chunk retrieval.

Every head of every layer chooses blocks by their landmarks, token by token; the keys and values of
all columns stay in memory (Mohtashami and Jaggi, 2023).

Shapes: B batch, L columns, H query heads, G key/value heads, D head dim, E hidden size.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from gcattn.memory.landmark_window import LandmarkWindow
from gcattn.nn.projections import project
from gcattn.nn.self_attention import ColumnContext, SlidingWindowSelfAttention
from gcattn.ops.landmark_attention import landmark_attention
from gcattn.ops.pointwise import rotate

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class LandmarkSelfAttention(SlidingWindowSelfAttention):
    """Attend to the token's own block, and to earlier blocks through their landmarks."""

    def __init__(self, config: "DRTConfig", layer_index: int) -> None:
        super().__init__(config, layer_index)
        self.chunk_size = config.chunk_size
        self.top_k = config.landmark_top_k

    def forward(self, hidden: Tensor, context: ColumnContext) -> Tensor:
        """Mix columns, [B, L, E] → [B, L, E]."""
        q, k, v = (
            x.unflatten(-1, (-1, self.head_dim))
            for x in project(hidden, self.q_proj, self.k_proj, self.v_proj)
        )  # [B, L, H or G, D]
        q, k = rotate(q, k, context.rotation)
        window = context.window
        assert isinstance(window, LandmarkWindow)
        k, v = window.extend(self.layer_index, k, v)  # [B, P + L, G, D]
        documents = window.key_documents
        if documents is None:  # whole, fresh rows of one document: landmarks are where they fall
            out = landmark_attention(q, k, v, chunk_size=self.chunk_size, top_k=self.top_k)
        else:
            out = landmark_attention(
                q,
                k,
                v,
                key_is_landmark=window.key_is_landmark,
                key_documents=documents,
                top_k=self.top_k,
            )
        (mixed,) = project(out.flatten(-2), self.o_proj)
        return mixed
