"""Operators that stand alone: tensors in, tensors out, no model and no configuration."""

from gcattn.ops.chunk_topk import ChunkSelection, chunk_topk
from gcattn.ops.grouped_cross_attention import grouped_cross_attention
from gcattn.ops.linear_cross_entropy import linear_cross_entropy
from gcattn.ops.sliding_window import sliding_window_attention

__all__ = [
    "ChunkSelection",
    "chunk_topk",
    "grouped_cross_attention",
    "linear_cross_entropy",
    "sliding_window_attention",
]
