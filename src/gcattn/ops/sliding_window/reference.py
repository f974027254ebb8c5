"""Sliding-window attention in plain PyTorch: linear memory, any device, any dtype.

Shapes: B batch, L query columns, P cached columns before them, H query heads, G key/value heads,
D head dim, W window (keys per query, itself included).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.ops.implementation import computes_wide

# columns of a block: in smaller ones less is computed that the mask hides, in larger ones keys are
# cut out less often
MAX_BLOCK = 128
# documents of the columns added as padding: no real column has them, and padding after the last
# column sees itself, so that no row of a softmax is empty
_BEFORE, _BEHIND = -2, -3


def sliding_window_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window_size: int,
) -> Tensor:
    """Attend block by block; arguments as in `api`.

    Queries are cut into blocks, each against the keys that it can reach, so the cost is linear in L
    and no [L, L] mask exists.
    """
    B, L, H, _ = q.shape
    if L == 1 and k.shape[1] <= window_size:
        return _one_query(q, k, v, query_documents, key_documents)
    past, dtype = k.shape[1] - L, q.dtype
    if computes_wide(q):
        q, k, v = q.float(), k.float(), v.float()
    block = min(window_size, L, MAX_BLOCK)
    num_blocks = -(-L // block)
    # keys of block i: columns past + i·block - (W - 1) … past + (i + 1)·block - 1
    front = window_size - 1 - past
    back = num_blocks * block - L
    width = window_size - 1 + block

    q_blocks = F.pad(q, (0, 0, 0, 0, 0, back)).unflatten(1, (num_blocks, block))
    k_blocks, v_blocks = (
        F.pad(x, (0, 0, 0, 0, front, back)).unfold(1, width, block).movedim(-1, 2) for x in (k, v)
    )  # [B, num_blocks, width, G, D]
    offset = torch.arange(width, device=q.device) - torch.arange(block, device=q.device)[:, None]
    visible = (offset >= 0) & (offset < window_size)  # [block, width]
    if query_documents is None or key_documents is None:
        key_documents = torch.zeros((B, past + L), dtype=torch.long, device=q.device)
        query_documents = key_documents[:, past:]
    doc_q = F.pad(query_documents, (0, back), value=_BEHIND).unflatten(1, (num_blocks, block))
    doc_k = F.pad(F.pad(key_documents, (front, 0), value=_BEFORE), (0, back), value=_BEHIND)
    doc_k = doc_k.unfold(1, width, block)  # [B, num_blocks, width]
    mask = visible & (doc_q.unsqueeze(-1) == doc_k.unsqueeze(-2))  # [B, num_blocks, block, width]

    out = F.scaled_dot_product_attention(
        q_blocks.flatten(0, 1).transpose(1, 2),
        _heads_first(k_blocks, H),
        _heads_first(v_blocks, H),
        attn_mask=mask.flatten(0, 1).unsqueeze(1),
    )  # [B · num_blocks, H, block, D]
    return out.transpose(1, 2).reshape(B, num_blocks * block, H, -1)[:, :L].to(dtype)


def _one_query(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
) -> Tensor:
    """Attend with one query that reaches every key of its document: nothing has to be cut."""
    mask = None
    if query_documents is not None and key_documents is not None:
        mask = (query_documents == key_documents)[:, None, None]  # [B, 1, 1, P + 1]
    if k.stride(1) == 1:
        return _one_query_of_ring(q, k, v, mask)
    dtype = q.dtype
    if computes_wide(q):
        q, k, v = q.float(), k.float(), v.float()
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        enable_gqa=q.shape[2] != k.shape[2],
    )  # [B, H, 1, D]
    return out.transpose(1, 2).to(dtype)


def _one_query_of_ring(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend to columns that lie next to each other, which is how a CPU multiplies fastest."""
    B, _, G, D = k.shape
    logits = (q.view(B, G, -1, D) * D**-0.5) @ k.permute(0, 2, 3, 1)  # [B, G, H / G, P + 1]
    if mask is not None:
        logits = torch.where(mask, logits, -torch.inf)
    return (logits.softmax(-1) @ v.transpose(1, 2)).view(q.shape)


def _heads_first(x: Tensor, num_heads: int) -> Tensor:
    """Bring [B, num_blocks, width, G, D] to [B · num_blocks, H, width, D]."""
    copies = num_heads // x.shape[3]
    if copies > 1:
        x = x.repeat_interleave(copies, dim=3)
    return x.flatten(0, 1).transpose(1, 2)
