"""Grouped Cross-Attention of one query in each row, over chunks that were put in its reach before.

A CPU that decodes reads the same few chunks for many tokens. Here nothing is gathered: chunk k of
the pool is what slot k retrieved.

Shapes: B batch, H query heads, G key/value heads, D head dim, S slots per chunk, K retrieved
chunks, J = H / G query heads per key/value head.
"""

import math

import torch
from torch import Tensor

from gcattn.ops.grouped_cross_attention.reference import softmax_over_chunks
from gcattn.ops.native import MAX_HEAD_DIM, run_kernel, runs_native


def read_in_order(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor,
    *,
    sink_logit: float | None,
    is_joint: bool,
) -> Tensor:
    """Do what `grouped_cross_attention` does with the indices 0 … K - 1.

    Args:
        q: One query for each row and head, [B, 1, 1, H, D].
        k: Keys, [B, K, S, G, D]; read without a copy where slots lie next to each other.
        v: Values, like `k`.
        chunk_weights: Mixing weights, [B, 1, K]; zero where a slot is empty.
        chunk_lengths: Slots in use of each chunk, [B, K].
        sink_logit: See `grouped_cross_attention`.
        is_joint: With `mixing="joint"`.

    Returns:
        Mixed output, [B, 1, 1, H, D].
    """
    B, K, S, G, D = k.shape
    if _fits_kernel(q, k, v, chunk_weights, chunk_lengths):
        return _read_natively(q, k, v, chunk_weights, chunk_lengths, sink_logit, is_joint)
    queries = q.view(B, G, -1, D) * D**-0.5  # [B, G, J, D]
    logits = queries @ k.permute(0, 3, 4, 1, 2).flatten(-2)  # [B, G, J, K · S]
    used = torch.arange(S, device=q.device) < chunk_lengths.unsqueeze(-1)  # [B, K, S]
    weights = chunk_weights[:, :, None, :, None].to(q.dtype)  # [B, 1, 1, K, 1]
    logits = logits.unflatten(-1, (K, S))
    if is_joint:
        logits = torch.where(used[:, None, None], logits, -torch.inf)
        mixed = softmax_over_chunks(logits, weights, sink_logit=sink_logit)
    else:
        # finite, so that an empty chunk gives no NaN: its weight is zero
        logits = torch.where(used[:, None, None], logits, torch.finfo(q.dtype).min)
        if sink_logit is not None:
            logits = torch.cat([logits, torch.full_like(logits[..., :1], sink_logit)], dim=-1)
        mixed = logits.softmax(-1)[..., :S] * weights
    values = v.permute(0, 3, 1, 2, 4).flatten(2, 3)  # [B, G, K · S, D]
    return (mixed.flatten(-2) @ values).view(q.shape)


def _fits_kernel(
    q: Tensor, k: Tensor, v: Tensor, chunk_weights: Tensor, chunk_lengths: Tensor
) -> bool:
    return (
        k.stride() == v.stride()
        and k.stride(-1) == 1
        and q.shape[-1] <= MAX_HEAD_DIM
        and q.shape[-1] % 2 == 0
        and k.dtype == v.dtype == q.dtype
        and chunk_weights.dtype == torch.float32
        and chunk_weights.is_contiguous()
        and chunk_lengths.dtype == torch.long
        and chunk_lengths.stride(-1) == 1
        and runs_native(len(q), q)
    )


def _read_natively(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor,
    sink_logit: float | None,
    is_joint: bool,
) -> Tensor:
    out = torch.empty_like(q)
    B, K, S, G, D = k.shape
    sizes = [B, K, S, q.shape[-2], G, D, *k.stride()[:4], chunk_lengths.stride(0), int(is_joint)]
    sink = -math.inf if sink_logit is None else float(sink_logit)
    tensors = [q, k, v, chunk_weights, chunk_lengths, out]
    run_kernel("read_chunks", q.dtype, [*tensors, *sizes, sink, torch.get_num_threads()], [out])
    return out
