"""Grouped Cross-Attention as a module: own queries and output, keys and values from the pool.

The keys and values of a chunk are made once by the chunk encoder and serve every upper layer, so a
layer adds only a query and an output projection (paper, section 3.2).

Shapes: B batch, L columns, C blocks, M query slots per block, H query heads, G key/value heads,
D head dim, E hidden size, N chunks in the pool, S slots per chunk, K retrieved chunks.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gcattn.chunking import BlockGrid
from gcattn.memory.chunk_source import RetrievedChunks
from gcattn.nn.projections import project
from gcattn.ops.grouped_cross_attention import Mixing, grouped_cross_attention, read_in_order

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class GroupedCrossAttention(nn.Module):
    """Read the retrieved chunks of each block; queries carry no positions."""

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.sink_logit = float(config.sink_logit) if config.softmax_off_by_one else None
        # of each share of the heads
        self.mixings: tuple[Mixing, ...] = (
            ("joint", "separate") if config.chunk_mixing == "both" else (config.chunk_mixing,)
        )
        query_size = config.num_attention_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, retrieved: RetrievedChunks, blocks: BlockGrid) -> Tensor:
        """Read what was retrieved, [B, L, E] → [B, L, E]; zero where nothing was."""
        (q,) = project(hidden, self.q_proj)
        q = q.unflatten(-1, (-1, self.head_dim))  # [B, L, H, D]
        out = self._read(blocks.gather(q), retrieved)  # [B, C, M, H, D]
        (read,) = project(blocks.scatter(out).flatten(-2), self.o_proj)
        return read

    def _read(self, q: Tensor, retrieved: RetrievedChunks) -> Tensor:
        if len(self.mixings) == 1:
            return self._mix(self.mixings[0], q, retrieved)
        heads = (x.chunk(len(self.mixings), dim=-2) for x in (q, retrieved.keys, retrieved.values))
        outputs = [
            self._mix(mixing, q, retrieved._replace(keys=keys, values=values))
            for mixing, q, keys, values in zip(self.mixings, *heads, strict=True)
        ]
        return torch.cat(outputs, dim=-2)

    def _mix(self, mixing: Mixing, q: Tensor, retrieved: RetrievedChunks) -> Tensor:
        keys, values, lengths, indices, weights = retrieved
        if indices is None:
            q, dtype = q.to(keys.dtype), q.dtype  # chunks may be wide
            return read_in_order(
                q,
                keys,
                values,
                weights,
                lengths,
                sink_logit=self.sink_logit,
                is_joint=mixing == "joint",
            ).to(dtype)
        return grouped_cross_attention(
            q,
            keys,
            values,
            indices,
            weights,
            chunk_lengths=lengths,
            sink_logit=self.sink_logit,
            mixing=mixing,
        )
