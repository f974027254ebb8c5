"""Random inputs of the operator, retrieval included.

Shapes: B batch, L = C · S columns, C chunks, S slots per chunk, H query heads, G key/value heads,
D head dim, K retrieved chunks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.shapes import OperatorShape


@dataclass(frozen=True)
class OperatorInputs:
    """What every contestant computes from; the chunks of the pool are those of the columns."""

    shape: OperatorShape
    q: Tensor  # [B, C, S, H, D]
    k: Tensor  # [B, C, S, G, D]
    v: Tensor  # [B, C, S, G, D]
    chunk_indices: Tensor  # [B, C, K]
    chunk_weights: Tensor  # [B, C, K], float32
    dout: Tensor  # [B, C, S, H, D], gradient of the output


def random_inputs(
    shape: OperatorShape,
    device: torch.device,
    seed: int,
    *,
    dtype: torch.dtype | None = None,
) -> OperatorInputs:
    """Draw normal queries, keys and values, and a random causal retrieval.

    Args:
        shape: Sizes.
        device: Where the tensors are.
        seed: Fixes all numbers on one kind of device.
        dtype: Of queries, keys, values and gradient; that of the shape without it.
    """
    generator = torch.Generator(device).manual_seed(seed)
    B, C, S = shape.batch, shape.num_chunks, shape.chunk_size

    def normal(heads: int) -> Tensor:
        sizes = (B, C, S, heads, shape.head_dim)
        return torch.randn(
            sizes, generator=generator, device=device, dtype=dtype or shape.torch_dtype
        )

    indices = causal_retrieval(B, C, shape.top_k, seed)
    scores = torch.randn(indices.shape, generator=torch.Generator().manual_seed(seed))
    return OperatorInputs(
        shape,
        normal(shape.heads),
        normal(shape.kv_heads),
        normal(shape.kv_heads),
        indices.to(device),
        retrieval_weights(indices, scores).to(device),
        normal(shape.heads),
    )


def causal_retrieval(batch: int, num_chunks: int, top_k: int, seed: int) -> Tensor:
    """Draw min(K, c) distinct chunks before each chunk c, uniformly, [B, C, K]; -1 where none is.

    Floyd's sampling, for all chunks at once: C · K² comparisons, nothing grows with C².
    """
    generator = torch.Generator().manual_seed(seed)
    indices = torch.full((batch, num_chunks, top_k), -1)
    chunk = torch.arange(num_chunks)
    for i in range(top_k):
        last = chunk - top_k + i  # [C], the newest chunk that this draw may give
        uniform = torch.rand(batch, num_chunks, generator=generator, dtype=torch.float64)
        drawn = (uniform * (last + 1)).long()  # [B, C]
        is_taken = (indices[:, :, :i] == drawn.unsqueeze(-1)).any(-1)
        chosen = torch.where(is_taken, last, drawn)
        indices[:, :, i] = torch.where(last >= 0, chosen, -1)
    return indices


def retrieval_weights(indices: Tensor, scores: Tensor) -> Tensor:
    """Return the softmax of the scores over the filled slots, [B, C, K]; zero where none is."""
    weights = scores.masked_fill(indices < 0, -torch.inf).softmax(-1)
    return torch.where(indices < 0, 0, weights)
