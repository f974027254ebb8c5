"""The recurrent layer of a Block-Recurrent Transformer, a peer of chunk retrieval.

State vectors travel along the text. Before every chunk (the paper's block) its tokens read them,
beside the sliding window; after it they read the chunk and themselves and move by a learned gate.
What lies further back than the window is only what the states carry (Hutchins et al., 2022: one
such layer, a fixed gate and no feed-forward block for the states).

Shapes: B batch, L columns, C blocks, F finished chunks, S slots per chunk, n states, H query heads,
G key/value heads, D head dim, E hidden size.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from gcattn.chunking import ChunkLayout
from gcattn.nn.mlp import SwiGLU
from gcattn.nn.projections import project
from gcattn.nn.rms_norm import RMSNorm
from gcattn.nn.self_attention import ColumnContext, Recurrence, SlidingWindowSelfAttention

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

# the gate at the start: states keep three quarters of themselves over a chunk
GATE_BIAS = 1.0


class RecurrentAttention(nn.Module):
    """Tokens read states, and states read the tokens of each chunk and themselves."""

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__()
        self.head_dim = config.head_dim
        E, num_states = config.hidden_size, config.num_recurrent_states
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.initial = nn.Embedding(num_states, E)
        self.state_ids = nn.Embedding(num_states, E)  # what tells the states apart
        self.state_norm = RMSNorm(E, eps=config.rms_norm_eps)
        self.q_proj = nn.Linear(E, query_size, bias=False)
        self.o_proj = nn.Linear(query_size, E, bias=False)
        self.state_k_proj = nn.Linear(E, key_size, bias=False)
        self.state_v_proj = nn.Linear(E, key_size, bias=False)
        self.state_q_proj = nn.Linear(E, 2 * query_size, bias=False)  # to states, to tokens
        self.state_o_proj = nn.Linear(2 * query_size, E, bias=False)
        self.gate = nn.Parameter(torch.full((E,), GATE_BIAS))

    def forward(
        self, x: Tensor, recurrence: Recurrence, k_proj: nn.Module, v_proj: nn.Module
    ) -> Tensor:
        """Read the states before each chunk, [B, L, E] → [B, L, E], and move them on.

        Args:
            x: Normed columns.
            recurrence: The layout, and what earlier calls left.
            k_proj: Keys of columns, shared with the layer's self-attention as in the paper.
            v_proj: Values of columns, likewise.
        """
        layout, carried, blocks = recurrence.layout, recurrence.states, recurrence.blocks
        grid = recurrence.open_chunk.extend(layout.grid_from_columns(x), layout)  # [B, C, S, E]
        grid = grid[:, : layout.num_finished_chunks]
        keys, values = map(self._heads, project(grid, k_proj, v_proj))  # [B, F, G, S, D]
        initial = self.initial.weight
        first, begins = carried.before(initial, layout, len(x))
        states = self._move(first, begins, keys, values, layout)  # [B, F + 1, n, E]
        served = carried.serve(states, initial, layout, blocks.num_blocks)  # [B, C, n, E]
        carried.keep(states[:, -1], layout)
        normed = self._normed(served)
        (q,) = project(x, self.q_proj)
        q = blocks.gather(q.unflatten(-1, (-1, self.head_dim))).transpose(2, 3)  # [B, C, H, M, D]
        read = _attend(q, *self._keys_and_values(normed))
        (out,) = project(blocks.scatter(read.transpose(2, 3).contiguous()).flatten(-2), self.o_proj)
        return out

    def _move(
        self,
        states: Tensor,
        begins: Tensor | None,
        keys: Tensor,
        values: Tensor,
        layout: ChunkLayout,
    ) -> Tensor:
        """Let the states read one finished chunk after the other, [B, n, E] → [B, F + 1, n, E]."""
        every = [states]
        if not layout.num_finished_chunks:
            return states.unsqueeze(1)
        slot = torch.arange(keys.shape[-2], device=keys.device)
        used = slot < layout.chunk_lengths[..., None]  # [B, F, S]
        used = used | (slot == keys.shape[-2] - 1)  # the landmark
        gate = self.gate.sigmoid()
        for c in range(layout.num_finished_chunks):
            states = every[-1]
            if begins is not None:
                states = torch.where(begins[:, c, None, None], self.initial.weight, states)
            normed = self._normed(states)
            (queries,) = project(normed, self.state_q_proj)
            to_states, to_tokens = self._heads(queries).chunk(2, dim=1)
            own = _attend(to_states, *self._keys_and_values(normed))
            read = _attend(to_tokens, keys[:, c], values[:, c], used[:, c, None, None])
            both = torch.cat([own, read], dim=1).transpose(1, 2).flatten(-2)  # [B, n, 2 H D]
            (new,) = project(both, self.state_o_proj)
            moved = gate * states + (1 - gate) * new
            has_chunk = (c < layout.num_finished)[:, None, None]
            every.append(torch.where(has_chunk, moved, every[-1]))
        return torch.stack(every, dim=1)

    def _normed(self, states: Tensor) -> Tensor:
        return self.state_norm(states + self.state_ids.weight)

    def _keys_and_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = project(normed, self.state_k_proj, self.state_v_proj)
        return self._heads(keys), self._heads(values)

    def _heads(self, x: Tensor) -> Tensor:
        """Bring the heads before the positions, [..., n, G * D] → [..., G, n, D]."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)


class RecurrentDecoderLayer(GradientCheckpointingLayer):
    """Pre-norm layer of sliding-window self-attention, recurrent states and feed-forward block."""

    def __init__(self, config: "DRTConfig", layer_index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attention = SlidingWindowSelfAttention(config, layer_index)
        self.recurrent_attention = RecurrentAttention(config)
        self.mlp_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor, context: ColumnContext) -> Tensor:
        """Apply the layer, [B, L, E] → [B, L, E]."""
        assert context.recurrence is not None  # a model with this layer plans for it
        attention, x = self.self_attention, self.attention_norm(hidden)
        read = self.recurrent_attention(x, context.recurrence, attention.k_proj, attention.v_proj)
        hidden = hidden + attention(x, context) + read
        return hidden + self.mlp(self.mlp_norm(hidden))


def _attend(q: Tensor, k: Tensor, v: Tensor, used: Tensor | None = None) -> Tensor:
    """Attend, [..., H, M, D] to [..., G, n, D]; `used` is False at keys that are none."""
    dtype = torch.promote_types(k.dtype, q.dtype)
    return F.scaled_dot_product_attention(
        q.to(dtype), k.to(dtype), v.to(dtype), attn_mask=used, enable_gqa=q.shape[-3] != k.shape[-3]
    )
