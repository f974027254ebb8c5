"""Backward kernels of sliding-window attention: one owns queries, one owns keys; no atomics.

Letters as in `tiles`. With a the softmax weights, da = dout · v and delta = dout · out, the
gradient of the logits is a · (da - delta).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.sliding_window.tiles import (
    BACKWARD_KEYS,
    BACKWARD_QUERIES,
    LOG2_E,
    are_of_document,
    choose_tiles,
    key_tiles,
    load_tile,
)

Gradients = tuple[Tensor, Tensor, Tensor]


@triton.jit
def _add_to_queries(
    q,  # [BLOCK_M, BLOCK_D]
    dout,
    k_ptr,
    v_ptr,
    stride_kl,
    stride_vl,
    first_key,
    num_keys,
    D,
    visible,  # [BLOCK_M, BLOCK_N], read if MASKED
    lse,  # [BLOCK_M]
    delta,
    dq,
    scale,
    MASKED: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Add what one tile of keys sends back to the queries."""
    j = first_key + tl.arange(0, BLOCK_N)
    used = j < num_keys
    j = j.to(tl.int64)
    k = load_tile(k_ptr, j * stride_kl, used, D, MASKED, EVEN_D, BLOCK_D)
    v = load_tile(v_ptr, j * stride_vl, used, D, MASKED, EVEN_D, BLOCK_D)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee")
    dattention = tl.dot(dout, tl.trans(v), input_precision="ieee")
    attention = tl.exp2(scores * (scale * LOG2_E) - lse[:, None])
    if MASKED:
        attention = tl.where(visible, attention, 0.0)
    dscores = attention * (dattention - delta[:, None])
    return tl.dot(dscores.to(k.dtype), k, dq, input_precision="ieee")


@triton.jit(do_not_specialize=["P", "W"])
def _query_kernel(
    q_ptr,  # [B, L, H, D]
    k_ptr,  # [B, P + L, G, D]
    v_ptr,
    dout_ptr,  # [B, L, H, D]
    query_documents_ptr,  # [B, L]
    key_documents_ptr,  # [B, P + L]
    out_ptr,  # [B, L, H, D]
    lse_ptr,  # [B, H, L]
    dq_ptr,  # [B, L, H, D]
    delta_ptr,  # [B, H, L]
    stride_qb,
    stride_ql,
    stride_qh,
    stride_kb,
    stride_kl,
    stride_kg,
    stride_vb,
    stride_vl,
    stride_vg,
    stride_ob,
    stride_ol,
    stride_oh,
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
    """One program owns one tile of query rows of one (batch, kv head); it also writes delta."""
    pid = tl.program_id(0)
    g = (pid % G).to(tl.int64)
    tile = (pid // G) % num_tiles
    b = (pid // G // num_tiles).to(tl.int64)
    first_row = tile * BLOCK_M
    row = first_row + tl.arange(0, BLOCK_M)
    used = row < L * J
    i = row // J
    column = P + i
    i = i.to(tl.int64)
    h = g * J + row % J
    d = tl.arange(0, BLOCK_D)
    at = ((b * L + i) * G * J + h) * D
    q = load_tile(
        q_ptr + b * stride_qb, i * stride_ql + h * stride_qh, used, D, True, EVEN_D, BLOCK_D
    )
    dout = load_tile(
        dout_ptr + b * stride_ob, i * stride_ol + h * stride_oh, used, D, True, EVEN_D, BLOCK_D
    )
    out = load_tile(out_ptr, at, used, D, True, EVEN_D, BLOCK_D)
    delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
    per_row = (b * G * J + h) * L + i
    tl.store(delta_ptr + per_row, delta, mask=used)
    lse = tl.load(lse_ptr + per_row, mask=used, other=float("inf"))
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
        full_end = tl.where(plain & (unlike == 0), full_end, full_begin)

    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for first_key in range(full_begin, full_end, BLOCK_N):
        dq = _add_to_queries(
            q, dout, k_ptr, v_ptr, stride_kl, stride_vl, first_key, P + L, D, used,
            lse, delta, dq, scale, False, EVEN_D, BLOCK_N, BLOCK_D,
        )  # fmt: skip
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
        dq = _add_to_queries(
            q, dout, k_ptr, v_ptr, stride_kl, stride_vl, first_key, P + L, D, visible,
            lse, delta, dq, scale, True, EVEN_D, BLOCK_N, BLOCK_D,
        )  # fmt: skip

    tl.store(
        dq_ptr + at[:, None] + d[None, :],
        (dq * scale).to(dq_ptr.dtype.element_ty),
        mask=used[:, None] & (d < D)[None, :],
    )


@triton.jit
def _add_to_keys(
    k,  # [BLOCK_N, BLOCK_D]
    v,
    q_ptr,
    dout_ptr,
    lse_ptr,
    delta_ptr,
    stride_ql,
    stride_qh,
    stride_ol,
    stride_oh,
    first_row,
    L,
    J,
    D,
    visible,  # [BLOCK_N, BLOCK_M], read if MASKED
    dk,
    dv,
    scale,
    MASKED: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Add what one tile of query rows sends back to the keys and values."""
    row = first_row + tl.arange(0, BLOCK_M)
    used = row < L * J
    i, h = (row // J).to(tl.int64), (row % J).to(tl.int64)
    q = load_tile(q_ptr, i * stride_ql + h * stride_qh, used, D, MASKED, EVEN_D, BLOCK_D)
    dout = load_tile(dout_ptr, i * stride_ol + h * stride_oh, used, D, MASKED, EVEN_D, BLOCK_D)
    if MASKED:
        lse = tl.load(lse_ptr + h * L + i, mask=used, other=float("inf"))
        delta = tl.load(delta_ptr + h * L + i, mask=used, other=0.0)
    else:
        lse, delta = tl.load(lse_ptr + h * L + i), tl.load(delta_ptr + h * L + i)
    # keys are rows here, so the results feed the matrix units without being transposed
    scores = tl.dot(k, tl.trans(q), input_precision="ieee")
    dattention = tl.dot(v, tl.trans(dout), input_precision="ieee")
    attention = tl.exp2(scores * (scale * LOG2_E) - lse[None, :])
    if MASKED:
        attention = tl.where(visible, attention, 0.0)
    dv = tl.dot(attention.to(dout.dtype), dout, dv, input_precision="ieee")
    dscores = attention * (dattention - delta[None, :])
    dk = tl.dot(dscores.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit(do_not_specialize=["P", "W"])
def _key_kernel(
    q_ptr,  # [B, L, H, D]
    k_ptr,  # [B, P + L, G, D]
    v_ptr,
    dout_ptr,  # [B, L, H, D]
    query_documents_ptr,  # [B, L]
    key_documents_ptr,  # [B, P + L]
    lse_ptr,  # [B, H, L]
    delta_ptr,
    dk_ptr,  # [B, P + L, G, D]
    dv_ptr,
    stride_qb,
    stride_ql,
    stride_qh,
    stride_kb,
    stride_kl,
    stride_kg,
    stride_vb,
    stride_vl,
    stride_vg,
    stride_ob,
    stride_ol,
    stride_oh,
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
    """One program owns one tile of keys of one (batch, kv head) and loops over its readers."""
    pid = tl.program_id(0)
    g = (pid % G).to(tl.int64)
    tile = (pid // G) % num_tiles
    b = (pid // G // num_tiles).to(tl.int64)
    T = P + L
    first = tile * BLOCK_N
    last = tl.minimum(first + BLOCK_N, T) - 1
    j = first + tl.arange(0, BLOCK_N)
    used = j < T
    wide = j.to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    k_ptr += b * stride_kb + g * stride_kg
    v_ptr += b * stride_vb + g * stride_vg
    k = load_tile(k_ptr, wide * stride_kl, used, D, True, EVEN_D, BLOCK_D)
    v = load_tile(v_ptr, wide * stride_vl, used, D, True, EVEN_D, BLOCK_D)
    q_ptr += b * stride_qb + g * J * stride_qh
    dout_ptr += b * stride_ob + g * J * stride_oh
    lse_ptr += (b * G + g) * J * L
    delta_ptr += (b * G + g) * J * L

    # rows of the queries that reach a key of the tile, and of those that reach all of them
    begin = tl.maximum(first - P, 0) * J // BLOCK_M * BLOCK_M
    end = tl.maximum(tl.minimum(last + W - P, L), 0) * J
    full_begin = tl.cdiv(tl.maximum(last - P, 0) * J, BLOCK_M) * BLOCK_M
    full_end = tl.maximum(tl.minimum(first + W - P, L), 0) * J // BLOCK_M * BLOCK_M
    full_end = tl.maximum(full_end, full_begin)
    if HAS_DOCUMENTS:
        query_documents_ptr += b * L
        key_documents_ptr += b * T
        key_document = tl.load(key_documents_ptr + j, mask=used, other=0)
        document = tl.load(key_documents_ptr + first)
        unlike = tl.sum(((key_document != document) & used).to(tl.int32), 0)
        plain = are_of_document(
            query_documents_ptr, full_begin // J, tl.cdiv(full_end, J), document, 1024
        )
        full_end = tl.where(plain & (unlike == 0), full_end, full_begin)

    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for first_row in range(full_begin, full_end, BLOCK_M):
        dk, dv = _add_to_keys(
            k, v, q_ptr, dout_ptr, lse_ptr, delta_ptr, stride_ql, stride_qh, stride_ol, stride_oh,
            first_row, L, J, D, used, dk, dv, scale, False, EVEN_D, BLOCK_M, BLOCK_D,
        )  # fmt: skip
    num_before = (full_begin - begin) // BLOCK_M
    num_behind = tl.cdiv(tl.maximum(end - full_end, 0), BLOCK_M)
    for t in range(0, num_before + num_behind):
        skipped = tl.where(t < num_before, 0, full_end - full_begin)
        first_row = begin + t * BLOCK_M + skipped
        i = (first_row + tl.arange(0, BLOCK_M)) // J
        distance = P + i[None, :] - j[:, None]
        visible = (distance >= 0) & (distance < W)
        if HAS_DOCUMENTS:
            query_document = tl.load(query_documents_ptr + i, mask=i < L, other=0)
            visible = visible & (query_document[None, :] == key_document[:, None])
        dk, dv = _add_to_keys(
            k, v, q_ptr, dout_ptr, lse_ptr, delta_ptr, stride_ql, stride_qh, stride_ol, stride_oh,
            first_row, L, J, D, visible, dk, dv, scale, True, EVEN_D, BLOCK_M, BLOCK_D,
        )  # fmt: skip

    at = (((b * T + wide) * G + g) * D)[:, None] + d[None, :]
    inside = used[:, None] & (d < D)[None, :]
    tl.store(dk_ptr + at, (dk * scale).to(dk_ptr.dtype.element_ty), mask=inside)
    tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), mask=inside)


def sliding_window_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    out: Tensor,
    lse: Tensor,
    window_size: int,
) -> Gradients:
    """Launch the backward kernels; returns the gradients of q, k and v."""
    B, L, H, D = q.shape
    T, G = k.shape[1], k.shape[2]
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if q.numel() == 0:
        return dq, dk.zero_(), dv.zero_()
    delta = torch.empty_like(lse)
    strides = [size for x in (q, k, v, dout) for size in x.stride()[:3]]
    sizes = {"L": L, "P": T - L, "G": G, "J": H // G, "D": D, "scale": D**-0.5}
    sizes["W"] = min(window_size, T)
    num_rows = L * (H // G)

    tiles = choose_tiles(BACKWARD_QUERIES, num_rows, k)
    num_tiles = triton.cdiv(num_rows, tiles.block_m)
    flags = {"HAS_DOCUMENTS": query_documents is not None, "EVEN_D": tiles.block_d == D}
    _query_kernel[(B * num_tiles * G,)](
        q,
        k,
        v,
        dout,
        query_documents,
        key_documents,
        out,
        lse,
        dq,
        delta,
        *strides,
        num_tiles=num_tiles,
        BLOCK_M=tiles.block_m,
        BLOCK_N=tiles.block_n,
        BLOCK_D=tiles.block_d,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        maxnreg=tiles.max_registers,
        **sizes,
        **flags,
    )
    tiles = choose_tiles(BACKWARD_KEYS, num_rows, k)
    num_tiles = triton.cdiv(T, tiles.block_n)
    _key_kernel[(B * num_tiles * G,)](
        q,
        k,
        v,
        dout,
        query_documents,
        key_documents,
        lse,
        delta,
        dk,
        dv,
        *strides,
        num_tiles=num_tiles,
        BLOCK_M=tiles.block_m,
        BLOCK_N=tiles.block_n,
        BLOCK_D=tiles.block_d,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        maxnreg=tiles.max_registers,
        **sizes,
        **flags,
    )
    return dq, dk, dv
