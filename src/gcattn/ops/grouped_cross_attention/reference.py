"""Grouped Cross-Attention in plain PyTorch, to be held against the paper's equation (section 3.2).

Shapes: B batch, C chunks, M query slots per chunk, H query heads, G key/value heads, D head dim,
N chunks in the pool, S slots per chunk, K retrieved chunks, J = H / G query heads per key/value
head.
"""

import torch
from torch import Tensor

from gcattn.ops.implementation import computes_wide

# a joint exponential is at most exp(this): only where a chunk's weight is below exp(-this), so that
# the gradient of a weight of zero is finite
MAX_EXPONENT = 80.0


def grouped_cross_attention_reference(
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
    """Gather keys and values and compute o = sum_k w_k · softmax(scale · q K_k^T) V_k.

    Jointly: o = sum_k w_k · exp(scale · q K_k^T) V_k, divided by the sum of all those factors.
    """
    B, S, G = k.shape[0], k.shape[2], k.shape[3]
    filled = chunk_indices >= 0  # [B, C, K]
    read = chunk_indices.clamp_min(0).long()
    rows = torch.arange(B, device=k.device)[:, None, None]
    if k.shape[1] == 0 or chunk_indices.shape[2] == 0:
        return q * 0  # nothing to read: zero, yet still part of the graph

    queries = q.unflatten(3, (G, -1))  # [B, C, M, G, J, D]
    keys, values = _gather(k, rows, read), _gather(v, rows, read)  # [B, C, K, S, G, D]
    if computes_wide(q):
        queries, keys, values = queries.float(), keys.float(), values.float()
    logits = torch.einsum("bcmgjd,bcksgd->bcgjmks", queries, keys)
    logits = logits.to(torch.promote_types(q.dtype, torch.float32)) * scale

    if chunk_lengths is not None:
        used = torch.arange(S, device=k.device) < chunk_lengths[rows, read].unsqueeze(-1)
        logits = logits.masked_fill(~used[:, :, None, None, None], -torch.inf)  # used [B, C, K, S]
    weights = torch.where(filled, chunk_weights, 0).to(logits.dtype)
    weights = weights[:, :, None, None, None, :, None]  # [B, C, 1, 1, 1, K, 1]
    if is_joint:
        mixed = softmax_over_chunks(logits, weights, sink_logit=sink_logit)
    else:
        mixed = softmax_over_slots(logits, sink_logit=sink_logit) * weights
    mixed = mixed.to(values.dtype)
    return torch.einsum("bcgjmks,bcksgd->bcmgjd", mixed, values).flatten(3, 4).to(q.dtype)


def _gather(pool: Tensor, rows: Tensor, read: Tensor) -> Tensor:
    """Return chunks of a pool, [B, N, …] → [B, C, K, …]."""
    if torch.is_grad_enabled() and pool.requires_grad:
        return pool[rows, read]  # its gradient is deterministic
    if pool.shape[0] == 1:  # copies whole chunks
        return pool[0].index_select(0, read.flatten()).unflatten(0, read.shape)
    return pool[rows, read]


def softmax_over_slots(logits: Tensor, *, sink_logit: float | None) -> Tensor:
    """Softmax over the last dimension; a row that is all -inf gives zeros instead of NaN.

    With a sink, one slot more takes part in it, with that logit, and is left out of the result.
    """
    peak = logits.detach().amax(-1, keepdim=True)
    if sink_logit is not None:
        peak = peak.clamp_min(sink_logit)
        exponentials = (logits - peak).exp()
        return exponentials / (exponentials.sum(-1, keepdim=True) + (sink_logit - peak).exp())
    exponentials = (logits - peak.masked_fill(peak == -torch.inf, 0)).exp()
    total = exponentials.sum(-1, keepdim=True)
    return exponentials / total.masked_fill(total == 0, 1)


def softmax_over_chunks(logits: Tensor, weights: Tensor, *, sink_logit: float | None) -> Tensor:
    """One softmax over all slots of all chunks [..., K, S], each chunk's slots times its weight.

    It is the softmax of logits + log(weights), written as a product because the gradient of a
    logarithm has no value at a weight of zero. A row that is all zero gives zeros.
    """
    dims = (-2, -1)
    peak = (logits + weights.log()).detach().amax(dims, keepdim=True)
    if sink_logit is not None:
        peak = peak.clamp_min(sink_logit)
    peak = peak.masked_fill(peak == -torch.inf, 0)
    exponentials = (logits - peak).clamp_max(MAX_EXPONENT).exp()
    total = (weights * exponentials).sum(dims, keepdim=True)
    if sink_logit is not None:
        total = total + (sink_logit - peak).exp()
    is_blind = total == 0
    return weights * exponentials.masked_fill(is_blind, 0) / total.masked_fill(is_blind, 1)
