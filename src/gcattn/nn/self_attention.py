"""Sliding-window self-attention of the lower and upper decoder (paper, section 3).

Shapes: B batch, L columns, H query heads, G key/value heads, D head dim, E hidden size.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gcattn.chunking import BlockGrid, ChunkLayout
from gcattn.memory.open_chunk import OpenChunk
from gcattn.memory.recurrence import RecurrentStates
from gcattn.memory.window import WindowCache
from gcattn.nn.projections import project
from gcattn.ops.pointwise import Rotation, rotate
from gcattn.ops.sliding_window import sliding_window_attention

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


@dataclass(frozen=True)
class Recurrence:
    """What a recurrent layer also needs to know."""

    layout: ChunkLayout
    blocks: BlockGrid  # block j holds the columns of chunk j
    states: RecurrentStates
    open_chunk: OpenChunk  # the layer's normed columns of the chunk that is open


@dataclass(frozen=True)
class ColumnContext:
    """What every self-attention layer of one decoder needs to know about its columns."""

    rotation: Rotation
    documents: Tensor | None  # [B, L], -1 for unused columns; None: all are one document
    window: WindowCache  # keys and values of the columns before
    recurrence: Recurrence | None = None  # None: no layer is recurrent


class SlidingWindowSelfAttention(nn.Module):
    """Attend to the last W columns of the same document, the column itself included."""

    def __init__(self, config: "DRTConfig", layer_index: int) -> None:
        super().__init__()
        self.layer_index = layer_index
        self.head_dim = config.head_dim
        self.window_size = config.window_size
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, context: ColumnContext) -> Tensor:
        """Mix columns within the window, [B, L, E] → [B, L, E]."""
        q, k, v = (
            x.unflatten(-1, (-1, self.head_dim))
            for x in project(hidden, self.q_proj, self.k_proj, self.v_proj)
        )  # [B, L, H or G, D]
        q, k = rotate(q, k, context.rotation)
        k, v = context.window.extend(self.layer_index, k, v)  # [B, P + L, G, D]
        out = sliding_window_attention(
            q.to(k.dtype),  # a ring may be wide
            k,
            v,
            window_size=self.window_size,
            query_documents=context.documents,
            key_documents=context.window.key_documents,
        )
        (mixed,) = project(out.flatten(-2).to(hidden.dtype), self.o_proj)
        return mixed
