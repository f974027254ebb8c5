"""Forward kernel of Landmark Attention: an online softmax over blocks, a whole one inside each.

Letters as in `tiles`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.landmark_attention.tiles import (
    inner_softmax,
    load_block,
    own_scores,
    sizes,
    store_block,
)
from gcattn.ops.tiles import add_product


@triton.jit
def _forward_kernel(
    q_ptr,  # [B, L, H, D]
    k_ptr,  # [B, L, G, D]
    v_ptr,
    out_ptr,  # [B, L, H, D]
    lse_ptr,  # [B, L, H]
    scale,
    C,
    S: tl.constexpr,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns the queries of one block of one head and walks the blocks before it."""
    # the last blocks have most to read: they begin first
    c = C - 1 - tl.program_id(1)
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    g = h // (H // G)
    q = load_block(q_ptr, b, c, h, C, S, H, D, BLOCK_S, BLOCK_D)
    k = load_block(k_ptr, b, c, g, C, S, G, D, BLOCK_S, BLOCK_D)
    v = load_block(v_ptr, b, c, g, C, S, G, D, BLOCK_S, BLOCK_D)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    scores = own_scores(scores, S, BLOCK_S)
    highest = tl.max(scores, 1)
    attention = tl.exp(scores - highest[:, None])
    total = tl.sum(attention, 1)
    mixed = tl.dot(attention.to(v.dtype), v, input_precision="ieee")
    for n in range(0, c):
        k = load_block(k_ptr, b, n, g, C, S, G, D, BLOCK_S, BLOCK_D)
        v = load_block(v_ptr, b, n, g, C, S, G, D, BLOCK_S, BLOCK_D)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        gate, inner = inner_softmax(scores, S, BLOCK_S)
        new_highest = tl.maximum(highest, gate)
        fade, weight = tl.exp(highest - new_highest), tl.exp(gate - new_highest)
        total = total * fade + weight
        inner = inner * weight[:, None]
        mixed = add_product(mixed * fade[:, None], inner.to(v.dtype), v)
        highest = new_highest
    store_block(out_ptr, mixed / total[:, None], b, c, h, C, S, H, D, BLOCK_S, BLOCK_D)
    slot = tl.arange(0, BLOCK_S)
    row = (b.to(tl.int64) * C + c) * S + slot
    tl.store(lse_ptr + row * H + h, highest + tl.log(total), mask=slot < S)


def landmark_attention_forward(
    q: Tensor, k: Tensor, v: Tensor, chunk_size: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the output [B, L, H, D] and the logarithm of each denominator, [B, L, H]."""
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
    size = sizes(q, k, chunk_size)
    grid = (len(q) * size["H"], size["C"])
    if q.numel():
        _forward_kernel[grid](q, k, v, out, lse, scale, **size)
    return out, lse
