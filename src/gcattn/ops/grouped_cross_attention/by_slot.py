"""Grouped Cross-Attention on a CPU without a gradient: PyTorch's attention, one slot after another.

The reference holds the logits of all retrieved chunks at once and passes over them ten times. Here
the k-th chunk of every query chunk is gathered and attended, which the caches of a CPU hold.

Shapes: B batch, C chunks, M query slots per chunk, H query heads, G key/value heads, D head dim,
N chunks in the pool, S slots per chunk, K retrieved chunks, n chunks that are attended at once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.ops.launch import is_traced


def reads_by_slot(q: Tensor, k: Tensor, v: Tensor, chunk_indices: Tensor) -> bool:
    """Say whether `attend_by_slot` takes a call; arguments as in `api`."""
    return (
        q.is_cpu
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not is_traced((q, k, v))
        and 0 not in (*q.shape, *k.shape, *chunk_indices.shape)
    )


def attend_by_slot(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    sink_logit: float | None,
    scale: float,
    is_joint: bool,
) -> Tensor:
    """Do what `grouped_cross_attention_reference` does."""
    B, C, _, H, _ = q.shape
    N, S, G = k.shape[1:4]
    wide = torch.promote_types(q.dtype, torch.float32)
    queries = q.to(wide).flatten(0, 1).transpose(1, 2)  # [B · C, H, M, D]
    rows = torch.arange(B, device=q.device)[:, None, None] * N
    chunks = (chunk_indices.clamp_min(0) + rows).flatten(0, 1)  # [B · C, K]
    weights = torch.where(chunk_indices >= 0, chunk_weights, 0).flatten(0, 1).to(wide)
    lengths = chunk_lengths if chunk_lengths is not None else torch.full((B, N), S)
    lengths = lengths.flatten()[chunks]  # [B · C, K]
    weights = weights.masked_fill(lengths <= 0, 0)
    # in a joint softmax a chunk's weight is a factor of each exponential
    biases = weights.log() if is_joint else torch.zeros_like(weights)

    out = torch.zeros_like(queries)
    at_once = chunks.shape[1] if is_joint else 1
    for slot in range(0, chunks.shape[1], at_once):
        part = slice(slot, slot + at_once)
        keys, values = (_gather(pool, chunks[:, part], wide) for pool in (k, v))
        used = torch.arange(S) < lengths[:, part, None]
        bias = torch.where(used, biases[:, part, None], -torch.inf).flatten(1)  # [B · C, n · S]
        if sink_logit is not None:  # a key that gives nothing
            keys, values = (F.pad(x, (0, 0, 0, 0, 0, 1)) for x in (keys, values))
            bias = F.pad(bias, (0, 1), value=sink_logit)
        # finite, so that no row is empty
        bias = bias.clamp_min(torch.finfo(wide).min)[:, None, None]
        read = F.scaled_dot_product_attention(
            queries,
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=bias,
            scale=scale,
            enable_gqa=G != H,
        )  # [B · C, H, M, D]
        weight = weights.any(1) if is_joint else weights[:, slot]
        out.addcmul_(read, weight.to(wide)[:, None, None, None])
    return out.transpose(1, 2).unflatten(0, (B, C)).to(q.dtype)


def _gather(pool: Tensor, chunks: Tensor, dtype: torch.dtype) -> Tensor:
    """Return chunks [B · C, n] of a pool [B, N, S, G, D] as [B · C, n · S, G, D]."""
    gathered = pool.flatten(0, 1).index_select(0, chunks.flatten()).to(dtype)
    return gathered.unflatten(0, chunks.shape).flatten(1, 2)
