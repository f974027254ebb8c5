"""Backward kernels of sliding-window attention: one owns queries, one owns keys; no atomics.

Letters as in `tiles`. With a the softmax weights, da = dout · v and delta = dout · out, the
gradient of the logits is a · (da - delta).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout, allocator
from gcattn.ops.sliding_window.tiles import (
    BACKWARD_KEYS,
    BACKWARD_QUERIES,
    are_of_document,
    choose_tiles,
    key_tiles,
)
from gcattn.ops.tiles import LOG2_E, Tiles, add_product, load_rows, store_rows

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
    visible,  # [BLOCK_M, BLOCK_N], read if MASKED
    lse,  # [BLOCK_M]
    delta,
    dq,
    scale,
    MASKED: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Add what one tile of keys sends back to the queries."""
    j = first_key + tl.arange(0, BLOCK_N)
    used = j < num_keys
    j = j.to(tl.int64)
    k = load_rows(k_ptr, j * stride_kl, used, MASKED, D, BLOCK_D)
    v = load_rows(v_ptr, j * stride_vl, used, MASKED, D, BLOCK_D)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee")
    dattention = tl.dot(dout, tl.trans(v), input_precision="ieee")
    attention = tl.exp2(scores * (scale * LOG2_E) - lse[:, None])
    if MASKED:
        attention = tl.where(visible, attention, 0.0)
    dscores = attention * (dattention - delta[:, None])
    return add_product(dq, dscores.to(k.dtype), k)


@triton.jit(do_not_specialize=["P", "W"])
def _query_kernel(
    q_ptr,  # [B, L, H, D]
    k_ptr,  # [B, P + L, G, D]
    v_ptr,
    dout_ptr,  # [B, L, H, D]
    query_documents_ptr,  # [B, L] or None
    key_documents_ptr,  # [B, P + L] or None
    out_ptr,  # [B, L, H, D]
    lse_ptr,  # [B, H, L]
    dq_ptr,  # [B, L, H, D]
    delta_ptr,  # [B, H, L]
    q_strides,  # of B, L, H
    k_strides,  # of B, P + L, G
    v_strides,
    dout_strides,  # of B, L, H
    L,
    P,
    W,
    scale,
    G: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one tile of query rows of one (batch, kv head); it also writes delta."""
    pid = tl.program_id(0)
    num_tiles = tl.cdiv(L * J, BLOCK_M)
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
    at = ((b * L + i) * G * J + h) * D
    q_ptr += b * q_strides[0]
    q = load_rows(q_ptr, i * q_strides[1] + h * q_strides[2], used, True, D, BLOCK_D)
    dout_ptr += b * dout_strides[0]
    dout_offsets = i * dout_strides[1] + h * dout_strides[2]
    dout = load_rows(dout_ptr, dout_offsets, used, True, D, BLOCK_D)
    out = load_rows(out_ptr, at, used, True, D, BLOCK_D)
    delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
    per_row = (b * G * J + h) * L + i
    tl.store(delta_ptr + per_row, delta, mask=used)
    lse = tl.load(lse_ptr + per_row, mask=used, other=float("inf"))
    k_ptr += b * k_strides[0] + g * k_strides[2]
    v_ptr += b * v_strides[0] + g * v_strides[2]

    last_row = tl.minimum(first_row + BLOCK_M, L * J) - 1
    first, last = P + first_row // J, P + last_row // J
    begin, full_begin, full_end = key_tiles(first, last, W, BLOCK_N)
    if query_documents_ptr is not None:
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
            q, dout, k_ptr, v_ptr, k_strides[1], v_strides[1], first_key, P + L, used,
            lse, delta, dq, scale, False, D, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    num_before = (full_begin - begin) // BLOCK_N
    num_behind = tl.cdiv(tl.maximum(last + 1 - full_end, 0), BLOCK_N)
    for t in range(0, num_before + num_behind):
        skipped = tl.where(t < num_before, 0, full_end - full_begin)
        first_key = begin + t * BLOCK_N + skipped
        j = first_key + tl.arange(0, BLOCK_N)
        distance = column[:, None] - j[None, :]
        visible = (distance >= 0) & (distance < W)
        if query_documents_ptr is not None:
            key_document = tl.load(key_documents_ptr + j, mask=j < P + L, other=0)
            visible = visible & (query_document[:, None] == key_document[None, :])
        dq = _add_to_queries(
            q, dout, k_ptr, v_ptr, k_strides[1], v_strides[1], first_key, P + L, visible,
            lse, delta, dq, scale, True, D, BLOCK_N, BLOCK_D,
        )  # fmt: skip

    store_rows(dq_ptr, at, dq * scale, used, D, BLOCK_D)


@triton.jit
def _add_to_keys(
    k,  # [BLOCK_N, BLOCK_D]
    v,
    q_ptr,
    dout_ptr,
    lse_ptr,
    delta_ptr,
    q_strides,
    dout_strides,
    first_row,
    L,
    visible,  # [BLOCK_N, BLOCK_M], read if MASKED
    dk,
    dv,
    scale,
    MASKED: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Add what one tile of query rows sends back to the keys and values."""
    row = first_row + tl.arange(0, BLOCK_M)
    used = row < L * J
    i, h = (row // J).to(tl.int64), (row % J).to(tl.int64)
    q = load_rows(q_ptr, i * q_strides[1] + h * q_strides[2], used, MASKED, D, BLOCK_D)
    dout = load_rows(dout_ptr, i * dout_strides[1] + h * dout_strides[2], used, MASKED, D, BLOCK_D)
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
    dv = add_product(dv, attention.to(dout.dtype), dout)
    dscores = attention * (dattention - delta[None, :])
    dk = add_product(dk, dscores.to(q.dtype), q)
    return dk, dv


@triton.jit(do_not_specialize=["P", "W"])
def _key_kernel(
    q_ptr,  # [B, L, H, D]
    k_ptr,  # [B, P + L, G, D]
    v_ptr,
    dout_ptr,  # [B, L, H, D]
    query_documents_ptr,  # [B, L] or None
    key_documents_ptr,  # [B, P + L] or None
    lse_ptr,  # [B, H, L]
    delta_ptr,
    dk_ptr,  # [B, P + L, G, D]
    dv_ptr,
    q_strides,  # of B, L, H
    k_strides,  # of B, P + L, G
    v_strides,
    dout_strides,  # of B, L, H
    L,
    P,
    W,
    scale,
    G: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one tile of keys of one (batch, kv head) and loops over its readers."""
    pid = tl.program_id(0)
    T = P + L
    num_tiles = tl.cdiv(T, BLOCK_N)
    g = (pid % G).to(tl.int64)
    tile = (pid // G) % num_tiles
    b = (pid // G // num_tiles).to(tl.int64)
    first = tile * BLOCK_N
    last = tl.minimum(first + BLOCK_N, T) - 1
    j = first + tl.arange(0, BLOCK_N)
    used = j < T
    wide = j.to(tl.int64)
    k_ptr += b * k_strides[0] + g * k_strides[2]
    v_ptr += b * v_strides[0] + g * v_strides[2]
    k = load_rows(k_ptr, wide * k_strides[1], used, True, D, BLOCK_D)
    v = load_rows(v_ptr, wide * v_strides[1], used, True, D, BLOCK_D)
    q_ptr += b * q_strides[0] + g * J * q_strides[2]
    dout_ptr += b * dout_strides[0] + g * J * dout_strides[2]
    lse_ptr += (b * G + g) * J * L
    delta_ptr += (b * G + g) * J * L

    # rows of the queries that reach a key of the tile, and of those that reach all of them
    begin = tl.maximum(first - P, 0) * J // BLOCK_M * BLOCK_M
    end = tl.maximum(tl.minimum(last + W - P, L), 0) * J
    full_begin = tl.cdiv(tl.maximum(last - P, 0) * J, BLOCK_M) * BLOCK_M
    full_end = tl.maximum(tl.minimum(first + W - P, L), 0) * J // BLOCK_M * BLOCK_M
    full_end = tl.maximum(full_end, full_begin)
    if query_documents_ptr is not None:
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
            k, v, q_ptr, dout_ptr, lse_ptr, delta_ptr, q_strides, dout_strides,
            first_row, L, used, dk, dv, scale, False, J, D, BLOCK_M, BLOCK_D,
        )  # fmt: skip
    num_before = (full_begin - begin) // BLOCK_M
    num_behind = tl.cdiv(tl.maximum(end - full_end, 0), BLOCK_M)
    for t in range(0, num_before + num_behind):
        skipped = tl.where(t < num_before, 0, full_end - full_begin)
        first_row = begin + t * BLOCK_M + skipped
        i = (first_row + tl.arange(0, BLOCK_M)) // J
        distance = P + i[None, :] - j[:, None]
        visible = (distance >= 0) & (distance < W)
        if query_documents_ptr is not None:
            query_document = tl.load(query_documents_ptr + i, mask=i < L, other=0)
            visible = visible & (query_document[None, :] == key_document[:, None])
        dk, dv = _add_to_keys(
            k, v, q_ptr, dout_ptr, lse_ptr, delta_ptr, q_strides, dout_strides,
            first_row, L, visible, dk, dv, scale, True, J, D, BLOCK_M, BLOCK_D,
        )  # fmt: skip

    at = ((b * T + wide) * G + g) * D
    store_rows(dk_ptr, at, dk * scale, used, D, BLOCK_D)
    store_rows(dv_ptr, at, dv, used, D, BLOCK_D)


def plan_backward(
    dout: Layout,
    q: Layout,
    k: Layout,
    v: Layout,
    query_documents: Layout | None,
    key_documents: Layout | None,
    out: Layout,
    lse: Layout,
    window_size: int,
) -> Callable[..., Gradients]:
    """Prepare the backward pass; arguments as for `plan_forward`, dout of any strides but D's.

    Returns:
        A function of dout, q, k, v, query_documents, key_documents, the output and the logarithms.
        It returns the gradients of q, k and v.
    """
    B, L, H, D = q.shape
    T, G = k.shape[1], k.shape[2]
    J = H // G
    sizes = (
        *(x.strides[:3] for x in (q, k, v, dout)),
        *(L, T - L, min(window_size, T), D**-0.5),
        *(G, J, D),
    )

    def launch(kernel: Any, tiles: Tiles, num_tiles: int) -> Launch:
        blocks = tiles.block_m, tiles.block_n, tiles.block_d
        return Launch(kernel, (B * G * num_tiles,), *sizes, *blocks, **tiles.options())

    tiles = choose_tiles(BACKWARD_QUERIES, L * J, k)
    queries = launch(_query_kernel, tiles, triton.cdiv(L * J, tiles.block_m))
    tiles = choose_tiles(BACKWARD_KEYS, L * J, k)
    keys = launch(_key_kernel, tiles, triton.cdiv(T, tiles.block_n))
    new_q, new_k, new_v, new_delta = [allocator(x, dout.device) for x in (q, k, v, lse)]
    is_empty = 0 in q.shape

    def run(*inputs: Any) -> Gradients:
        dout, q, k, v, query_documents, key_documents, out, lse = inputs
        dq, dk, dv = new_q(q), new_k(k), new_v(v)
        if is_empty:
            return dq, dk.zero_(), dv.zero_()
        delta = new_delta(lse)
        given = q, k, v, dout, query_documents, key_documents
        queries(*given, out, lse, dq, delta)
        keys(*given, lse, delta, dk, dv)
        return dq, dk, dv

    return run
