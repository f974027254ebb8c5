"""Forward kernel of sliding-window attention: online softmax over the keys inside the window.

Letters as in `tiles`. Logarithms have base 2: the logits carry a factor of log2(e).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.sliding_window.tiles import (
    FORWARD,
    LOG2_E,
    are_of_document,
    choose_tiles,
    key_tiles,
    load_tile,
)

# finite, so that a row that has seen no key yet never meets infinity minus infinity
_LOWEST = tl.constexpr(-3.4e38)


@triton.jit
def _attend(
    q,  # [BLOCK_M, BLOCK_D]
    k_ptr,
    v_ptr,
    stride_kl,
    stride_vl,
    first_key,
    num_keys,
    D,
    visible,  # [BLOCK_M, BLOCK_N], read if MASKED
    highest,
    total,
    mixed,
    scale,
    MASKED: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Take one tile of keys into the running maximum, sum and mix of each row."""
    j = first_key + tl.arange(0, BLOCK_N)
    used = j < num_keys
    j = j.to(tl.int64)
    k = load_tile(k_ptr, j * stride_kl, used, D, MASKED, EVEN_D, BLOCK_D)
    v = load_tile(v_ptr, j * stride_vl, used, D, MASKED, EVEN_D, BLOCK_D)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2_E)
    if MASKED:
        scores = tl.where(visible, scores, float("-inf"))
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    attention = tl.exp2(scores - new_highest[:, None])
    fade = tl.exp2(highest - new_highest)
    total = total * fade + tl.sum(attention, 1)
    mixed = mixed * fade[:, None]
    mixed = tl.dot(attention.to(v.dtype), v, mixed, input_precision="ieee")
    return new_highest, total, mixed


@triton.jit(do_not_specialize=["P", "W"])
def _forward_kernel(
    q_ptr,  # [B, L, H, D]
    k_ptr,  # [B, P + L, G, D]
    v_ptr,
    query_documents_ptr,  # [B, L]
    key_documents_ptr,  # [B, P + L]
    out_ptr,  # [B, L, H, D]
    lse_ptr,  # [B, H, L]
    stride_qb,
    stride_ql,
    stride_qh,
    stride_kb,
    stride_kl,
    stride_kg,
    stride_vb,
    stride_vl,
    stride_vg,
    L,
    P,
    G,
    J,
    D,
    W,
    num_tiles,
    scale,
    HAS_DOCUMENTS: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one tile of query rows of one (batch, kv head)."""
    pid = tl.program_id(0)
    g = (pid % G).to(tl.int64)
    tile = (pid // G) % num_tiles
    b = (pid // G // num_tiles).to(tl.int64)
    first_row = tile * BLOCK_M
    row = first_row + tl.arange(0, BLOCK_M)
    used = row < L * J
    i = row // J
    column = P + i  # where the query stands among the keys
    i = i.to(tl.int64)
    h = g * J + row % J
    q = load_tile(
        q_ptr + b * stride_qb, i * stride_ql + h * stride_qh, used, D, True, EVEN_D, BLOCK_D
    )
    k_ptr += b * stride_kb + g * stride_kg
    v_ptr += b * stride_vb + g * stride_vg

    last_row = tl.minimum(first_row + BLOCK_M, L * J) - 1
    first, last = P + first_row // J, P + last_row // J
    begin, full_begin, full_end = key_tiles(first, last, W, BLOCK_N)
    if HAS_DOCUMENTS:
        query_documents_ptr += b * L
        key_documents_ptr += b * (P + L)
        query_document = tl.load(query_documents_ptr + i, mask=used, other=0)
        document = tl.load(query_documents_ptr + first_row // J)
        unlike = tl.sum(((query_document != document) & used).to(tl.int32), 0)
        plain = are_of_document(key_documents_ptr, full_begin, full_end, document, 1024)
        # a tile that two documents meet in is masked like one at the edge of the window
        full_end = tl.where(plain & (unlike == 0), full_end, full_begin)

    highest = tl.full([BLOCK_M], _LOWEST, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for first_key in range(full_begin, full_end, BLOCK_N):
        highest, total, mixed = _attend(
            q, k_ptr, v_ptr, stride_kl, stride_vl, first_key, P + L, D, used,
            highest, total, mixed, scale, False, EVEN_D, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    # the tiles before and behind those, in one loop
    num_before = (full_begin - begin) // BLOCK_N
    num_behind = tl.cdiv(tl.maximum(last + 1 - full_end, 0), BLOCK_N)
    for t in range(0, num_before + num_behind):
        skipped = tl.where(t < num_before, 0, full_end - full_begin)
        first_key = begin + t * BLOCK_N + skipped
        j = first_key + tl.arange(0, BLOCK_N)
        distance = column[:, None] - j[None, :]
        visible = (distance >= 0) & (distance < W)
        if HAS_DOCUMENTS:
            key_document = tl.load(key_documents_ptr + j, mask=j < P + L, other=0)
            visible = visible & (query_document[:, None] == key_document[None, :])
        highest, total, mixed = _attend(
            q, k_ptr, v_ptr, stride_kl, stride_vl, first_key, P + L, D, visible,
            highest, total, mixed, scale, True, EVEN_D, BLOCK_N, BLOCK_D,
        )  # fmt: skip

    # a query that sees nothing gives zero; an infinite sum keeps it out of the backward pass
    is_blind = total == 0
    total = tl.where(is_blind, 1.0, total)
    mixed = mixed / total[:, None]
    lse = tl.where(is_blind, float("inf"), highest + tl.log2(total))
    tl.store(lse_ptr + (b * G * J + h) * L + i, lse, mask=used)
    d = tl.arange(0, BLOCK_D)
    at = ((b * L + i) * G * J + h) * D
    tl.store(
        out_ptr + at[:, None] + d[None, :],
        mixed.to(out_ptr.dtype.element_ty),
        mask=used[:, None] & (d < D)[None, :],
    )


def sliding_window_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window_size: int,
) -> tuple[Tensor, Tensor]:
    """Launch the forward kernel.

    Returns the output [B, L, H, D] and, in base 2, the logarithm of each softmax's sum [B, H, L].
    """
    B, L, H, D = q.shape
    G = k.shape[2]
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty((B, H, L), dtype=torch.float32, device=q.device)
    if q.numel() == 0:
        return out, lse
    tiles = choose_tiles(FORWARD, L * (H // G), k)
    num_tiles = triton.cdiv(L * (H // G), tiles.block_m)
    _forward_kernel[(B * num_tiles * G,)](
        q,
        k,
        v,
        query_documents,
        key_documents,
        out,
        lse,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        L=L,
        P=k.shape[1] - L,
        G=G,
        J=H // G,
        D=D,
        W=min(window_size, k.shape[1]),
        num_tiles=num_tiles,
        scale=D**-0.5,
        HAS_DOCUMENTS=query_documents is not None,
        EVEN_D=tiles.block_d == D,
        BLOCK_M=tiles.block_m,
        BLOCK_N=tiles.block_n,
        BLOCK_D=tiles.block_d,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        maxnreg=tiles.max_registers,
    )
    return out, lse
