"""Backward kernels of Landmark Attention: one for queries, one for keys and values, no atomics.

With a the weight of a landmark, p the softmax inside its block and t = sum_j p_j · (do · v_j), a
token's score has the gradient a p_j (do · v_j - t), the landmark's a (t - do · o).

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
    load_rows,
    own_scores,
    sizes,
    store_block,
)
from gcattn.ops.tiles import add_product


@triton.jit
def _gradients(q, k, v, dout, lse, delta, is_own, scale, S: tl.constexpr, BLOCK_S: tl.constexpr):
    """Return attention and gradient of the scores, [queries, keys], of a pair of blocks."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    dvalue = tl.dot(dout, tl.trans(v), input_precision="ieee")  # do · v
    if is_own:
        attention = tl.exp(own_scores(scores, S, BLOCK_S) - lse[:, None])
        dscores = attention * (dvalue - delta[:, None])
    else:
        gate, inner = inner_softmax(scores, S, BLOCK_S)
        weight = tl.exp(gate - lse)
        read = tl.sum(inner * dvalue, 1)
        attention = inner * weight[:, None]
        dscores = attention * (dvalue - read[:, None])
        is_landmark = (tl.arange(0, BLOCK_S) == S - 1)[None, :]
        dscores = tl.where(is_landmark, (weight * (read - delta))[:, None], dscores)
    return attention, dscores * scale


@triton.jit
def _queries_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    dout_ptr,
    lse_ptr,
    delta_ptr,
    dq_ptr,
    scale,
    C,
    S: tl.constexpr,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns the gradient of the queries of one block of one head."""
    c = C - 1 - tl.program_id(1)
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    g = h // (H // G)
    q = load_block(q_ptr, b, c, h, C, S, H, D, BLOCK_S, BLOCK_D)
    dout = load_block(dout_ptr, b, c, h, C, S, H, D, BLOCK_S, BLOCK_D)
    lse = load_rows(lse_ptr, b, c, h, C, S, H, BLOCK_S)
    delta = load_rows(delta_ptr, b, c, h, C, S, H, BLOCK_S)
    k = load_block(k_ptr, b, c, g, C, S, G, D, BLOCK_S, BLOCK_D)
    v = load_block(v_ptr, b, c, g, C, S, G, D, BLOCK_S, BLOCK_D)
    _, dscores = _gradients(q, k, v, dout, lse, delta, True, scale, S, BLOCK_S)
    dq = tl.dot(dscores.to(k.dtype), k, input_precision="ieee")
    for n in range(0, c):
        k = load_block(k_ptr, b, n, g, C, S, G, D, BLOCK_S, BLOCK_D)
        v = load_block(v_ptr, b, n, g, C, S, G, D, BLOCK_S, BLOCK_D)
        _, dscores = _gradients(q, k, v, dout, lse, delta, False, scale, S, BLOCK_S)
        dq = add_product(dq, dscores.to(k.dtype), k)
    store_block(dq_ptr, dq, b, c, h, C, S, H, D, BLOCK_S, BLOCK_D)


@triton.jit
def _keys_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    dout_ptr,
    lse_ptr,
    delta_ptr,
    dk_ptr,
    dv_ptr,
    scale,
    C,
    S: tl.constexpr,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns the gradients of keys and values of one block of one kv head."""
    n = tl.program_id(1)
    b, g = tl.program_id(0) // G, tl.program_id(0) % G
    heads = H // G
    k = load_block(k_ptr, b, n, g, C, S, G, D, BLOCK_S, BLOCK_D)
    v = load_block(v_ptr, b, n, g, C, S, G, D, BLOCK_S, BLOCK_D)
    dk = tl.zeros((BLOCK_S, BLOCK_D), dtype=tl.float32)
    dv = tl.zeros((BLOCK_S, BLOCK_D), dtype=tl.float32)
    for h in range(g * heads, (g + 1) * heads):
        q = load_block(q_ptr, b, n, h, C, S, H, D, BLOCK_S, BLOCK_D)
        dout = load_block(dout_ptr, b, n, h, C, S, H, D, BLOCK_S, BLOCK_D)
        lse = load_rows(lse_ptr, b, n, h, C, S, H, BLOCK_S)
        delta = load_rows(delta_ptr, b, n, h, C, S, H, BLOCK_S)
        attention, dscores = _gradients(q, k, v, dout, lse, delta, True, scale, S, BLOCK_S)
        dv = add_product(dv, tl.trans(attention.to(dout.dtype)), dout)
        dk = add_product(dk, tl.trans(dscores.to(q.dtype)), q)
        for c in range(n + 1, C):
            q = load_block(q_ptr, b, c, h, C, S, H, D, BLOCK_S, BLOCK_D)
            dout = load_block(dout_ptr, b, c, h, C, S, H, D, BLOCK_S, BLOCK_D)
            lse = load_rows(lse_ptr, b, c, h, C, S, H, BLOCK_S)
            delta = load_rows(delta_ptr, b, c, h, C, S, H, BLOCK_S)
            attention, dscores = _gradients(q, k, v, dout, lse, delta, False, scale, S, BLOCK_S)
            dv = add_product(dv, tl.trans(attention.to(dout.dtype)), dout)
            dk = add_product(dk, tl.trans(dscores.to(q.dtype)), q)
    store_block(dk_ptr, dk, b, n, g, C, S, G, D, BLOCK_S, BLOCK_D)
    store_block(dv_ptr, dv, b, n, g, C, S, G, D, BLOCK_S, BLOCK_D)


def landmark_attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    chunk_size: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values, in their shapes and dtypes."""
    delta = (dout.float() * out.float()).sum(-1)  # [B, L, H]
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    size = sizes(q, k, chunk_size)
    if q.numel():
        inputs = (q, k, v, dout, lse, delta)
        queries, keys = ((len(q) * size[heads], size["C"]) for heads in ("H", "G"))
        _queries_kernel[queries](*inputs, dq, scale, **size)
        _keys_kernel[keys](*inputs, dk, dv, scale, **size)
    return dq, dk, dv
