"""Decoder layers: without retrieval (lower half) and with it (upper half) (paper, section 3).

Shapes: B batch, L columns, E hidden size.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from gcattn.chunking import BlockGrid
from gcattn.memory.chunk_source import RetrievedChunks
from gcattn.nn.cross_attention import GroupedCrossAttention
from gcattn.nn.landmark_self_attention import LandmarkSelfAttention
from gcattn.nn.mlp import SwiGLU
from gcattn.nn.rms_norm import RMSNorm, add_and_norm
from gcattn.nn.self_attention import ColumnContext, SlidingWindowSelfAttention
from gcattn.ops.pointwise import add

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig, ResidualWiring


def make_self_attention(config: "DRTConfig", layer_index: int) -> SlidingWindowSelfAttention:
    """Return the self-attention that the configuration names."""
    if config.self_attention == "landmark":
        return LandmarkSelfAttention(config, layer_index)
    return SlidingWindowSelfAttention(config, layer_index)


class DecoderLayer(GradientCheckpointingLayer):
    """Pre-norm layer of sliding-window self-attention and feed-forward block."""

    def __init__(self, config: "DRTConfig", layer_index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attention = make_self_attention(config, layer_index)
        self.mlp_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor, context: ColumnContext) -> Tensor:
        """Apply the layer, [B, L, E] → [B, L, E]; gradient checkpointing wraps this."""
        return self.compute(hidden, context)

    def compute(self, hidden: Tensor, context: ColumnContext) -> Tensor:
        """Do the same inside of gradient checkpointing, which a compiled layer leaves outside."""
        attended = self.self_attention(self.attention_norm(hidden), context)
        hidden, normed = add_and_norm(hidden, attended, self.mlp_norm)
        return add(hidden, self.mlp(normed))


class RetrievalDecoderLayer(GradientCheckpointingLayer):
    """Pre-norm layer of sliding-window self-attention, Grouped Cross-Attention and feed-forward."""

    def __init__(self, config: "DRTConfig", layer_index: int) -> None:
        super().__init__()
        self.residual_wiring: ResidualWiring = config.residual_wiring
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attention = make_self_attention(config, layer_index)
        self.cross_attention_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.cross_attention = GroupedCrossAttention(config)
        self.mlp_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(
        self,
        hidden: Tensor,
        keys: Tensor,
        values: Tensor,
        lengths: Tensor,
        indices: Tensor | None,
        weights: Tensor,
        context: ColumnContext,
        blocks: BlockGrid,
    ) -> Tensor:
        """Apply the layer, [B, L, E] → [B, L, E].

        What was retrieved comes as tensors, because reentrant gradient checkpointing follows no
        gradient into a structure.
        """
        retrieved = RetrievedChunks(keys, values, lengths, indices, weights)
        return self.compute(hidden, retrieved, context, blocks)

    def compute(
        self,
        hidden: Tensor,
        retrieved: RetrievedChunks,
        context: ColumnContext,
        blocks: BlockGrid,
    ) -> Tensor:
        """Do the same inside of gradient checkpointing, which a compiled layer leaves outside."""
        attended = self.self_attention(self.attention_norm(hidden), context)
        hidden, normed = add_and_norm(hidden, attended, self.cross_attention_norm)
        read = self.cross_attention(normed, retrieved, blocks)
        return feed_forward_with_retrieval(
            hidden, read, lambda x: self.mlp(self.mlp_norm(x)), self.residual_wiring
        )


def feed_forward_with_retrieval(
    hidden: Tensor, read: Tensor, feed_forward: Callable[[Tensor], Tensor], wiring: "ResidualWiring"
) -> Tensor:
    """Feed what was read into the layer's feed-forward block.

    The paper's model lets the read `g` bypass the residual stream: output = x + MLP(norm(x + g)).
    The stream stays free of raw retrieved content, which matters for perplexity. The "ordinary"
    wiring adds `g` to the stream first.
    """
    if wiring == "bypass":
        return add(hidden, feed_forward(add(hidden, read)))
    hidden = add(hidden, read)
    return add(hidden, feed_forward(hidden))
