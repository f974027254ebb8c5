"""Grouped Cross-Attention backward, the half that owns chunks of the pool: dk and dv.

A last kernel adds what several programs gave: partial sums of dk and dv, and shares of dweights.

Letters: see `tiles`; what is computed: see `triton_backward`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from gcattn.ops.grouped_cross_attention.readers import Readers, partials_of, segments_of
from gcattn.ops.grouped_cross_attention.scratch import Scratch, find_index
from gcattn.ops.grouped_cross_attention.tiles import (
    backward_pool_tiles,
    exponentials,
    load_slots,
    row_offsets,
)
from gcattn.ops.launch import Launch, Layout
from gcattn.ops.tiles import LOG2_E, add_product, load_rows, store_rows

Strides = tuple[int, ...]

# retrieved chunks whose weights one program owns
_BLOCK_SLOTS = 32


@triton.jit
def _pool_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    dout_ptr,
    weights_ptr,  # [B, C, K]
    lengths_ptr,  # [B, N] or None
    lse_ptr,  # [B, C, K, G, rows]; [B, C, G, rows] if JOINT
    scratch_ptr,  # delta and index are read, partial sums written
    dk_ptr,  # [B, N, S, G, D]
    dv_ptr,
    q_strides,  # of B, C, M, H
    k_strides,  # of B, N, S, G
    v_strides,
    dout_strides,  # of B, C, M, H
    lengths_stride,
    parts,  # of scratch
    C,
    M,
    N,
    num_segments,
    room,
    row_size,
    scale,
    G: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    K: tl.constexpr,
    JOINT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one segment of the readers of one (batch, pool chunk, kv head)."""
    pid = tl.program_id(0)
    num_tiles = tl.cdiv(M * J, BLOCK_M)
    g = pid % G
    b = (pid // G // num_segments).to(tl.int64)
    index_ptr = find_index(scratch_ptr, parts)
    segments_ptr = segments_of(index_ptr, b, C * K, row_size) + (pid // G) % num_segments * 4
    n = tl.load(segments_ptr).to(tl.int64)
    if n >= 0:
        first = tl.load(segments_ptr + 1)
        end = tl.load(segments_ptr + 2)
        partial = tl.load(segments_ptr + 3)
        k_ptr += b * k_strides[0] + n * k_strides[1] + g * k_strides[3]
        v_ptr += b * v_strides[0] + n * v_strides[1] + g * v_strides[3]
        k = load_slots(k_ptr, k_strides[2], S, D, BLOCK_S, BLOCK_D)
        v = load_slots(v_ptr, v_strides[2], S, D, BLOCK_S, BLOCK_D)
        s = tl.arange(0, BLOCK_S)
        length = S
        if lengths_ptr is not None:
            length = tl.load(lengths_ptr + b * lengths_stride + n)
        pairs_ptr = index_ptr + b * row_size
        q_ptr += b * q_strides[0]
        dout_ptr += b * dout_strides[0]

        dk = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
        dv = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
        for step in range(first * num_tiles, end * num_tiles):
            pair = tl.load(pairs_ptr + step // num_tiles)
            c = (pair // K).to(tl.int64)
            row = (step % num_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
            used = row < M * J
            q_offsets = row_offsets(row, g, q_strides[2], q_strides[3], J)
            q = load_rows(q_ptr + c * q_strides[1], q_offsets, used, True, D, BLOCK_D)
            dout_offsets = row_offsets(row, g, dout_strides[2], dout_strides[3], J)
            dout = load_rows(dout_ptr + c * dout_strides[1], dout_offsets, used, True, D, BLOCK_D)
            weight = tl.load(weights_ptr + b * C * K + pair).to(tl.float32)
            softmax = b * C * K + pair
            if JOINT:
                softmax = b * C + c
            per_row = (softmax * G + g) * M * J + row
            lse = tl.load(lse_ptr + per_row, mask=used, other=0.0)
            delta = tl.load(scratch_ptr + per_row, mask=used, other=0.0)
            # slots are rows here, so the results feed the matrix units without being transposed
            scores = tl.dot(k, tl.trans(q), input_precision="ieee")
            dattention = tl.dot(v, tl.trans(dout), input_precision="ieee")
            attention = exponentials(scores * (scale * LOG2_E) - lse[None, :], JOINT) * weight
            if (lengths_ptr is not None) or S != BLOCK_S:
                attention = tl.where((s < length)[:, None], attention, 0.0)
            dv = add_product(dv, attention.to(dout.dtype), dout)
            dscores = attention * (dattention - delta[None, :])
            dk = add_product(dk, dscores.to(q.dtype), q)

        dk *= scale
        if partial >= 0:
            d = tl.arange(0, BLOCK_D)
            at = ((b * room + partial) * G + g) * 2 * BLOCK_S * BLOCK_D
            at += s[:, None] * BLOCK_D + d[None, :]
            tl.store(scratch_ptr + parts[1] + at, dk)
            tl.store(scratch_ptr + parts[1] + at + BLOCK_S * BLOCK_D, dv)
        else:
            first_slot = ((b * N + n) * S * G + g) * D
            store_rows(dk_ptr + first_slot, s * (G * D), dk, s < S, D, BLOCK_D)
            store_rows(dv_ptr + first_slot, s * (G * D), dv, s < S, D, BLOCK_D)


@triton.jit
def _add_up_kernel(
    scratch_ptr,
    indices_ptr,  # [B, C, K]
    dk_ptr,  # [B, N, S, G, D]
    dv_ptr,
    dweights_ptr,  # [B, C, K]
    parts,  # of scratch
    P,
    N,
    num_segments,
    room,
    row_size,
    num_slots,
    num_shares,
    G: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns a few weights, or one (batch, pool chunk, kv head)."""
    pid = tl.program_id(0)
    chunk = pid - tl.cdiv(num_slots, BLOCK_P)
    if chunk < 0:
        slot = pid.to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
        # after the last filled slot nothing was written
        is_filled = tl.load(indices_ptr + slot, mask=slot < num_slots, other=-1) >= 0
        shares_ptr = scratch_ptr + parts[0] + slot * num_shares
        total = tl.zeros([BLOCK_P], tl.float32)
        for i in range(0, num_shares):
            total += tl.load(shares_ptr + i, mask=is_filled, other=0.0)
        total = total.to(dweights_ptr.dtype.element_ty)
        tl.store(dweights_ptr + slot, total, mask=slot < num_slots)
    else:
        g = chunk % G
        n = (chunk // G) % N
        b = (chunk // G // N).to(tl.int64)
        index_ptr = find_index(scratch_ptr, parts)
        partials_ptr = partials_of(index_ptr, b, P, num_segments, row_size) + n * 2
        first, count = tl.load(partials_ptr), tl.load(partials_ptr + 1)
        if count > 0:
            s, d = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
            dk = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
            dv = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
            partial_ptr = scratch_ptr + parts[1]
            for i in range(first, first + count):  # in their order
                read = ((b * room + i) * G + g) * 2 * BLOCK_S * BLOCK_D
                read += s[:, None] * BLOCK_D + d[None, :]
                dk += tl.load(partial_ptr + read)
                dv += tl.load(partial_ptr + read + BLOCK_S * BLOCK_D)
            first_slot = ((b * N + n) * S * G + g) * D
            store_rows(dk_ptr + first_slot, s * (G * D), dk, s < S, D, BLOCK_D)
            store_rows(dv_ptr + first_slot, s * (G * D), dv, s < S, D, BLOCK_D)


def plan_pool_gradients(
    k: Layout,
    chunk_indices: Layout,
    num_query_slots: int,
    num_group_heads: int,
    num_shares: int,
    strides: tuple[Strides, Strides, Strides, Strides],
    lengths_stride: int,
    readers: Readers,
    scratch: Scratch,
    scale: float,
    is_joint: bool,
) -> tuple[Launch, Launch]:
    """Prepare dk, dv and dweights.

    Args:
        k, chunk_indices: Layouts of the pool and of what was retrieved.
        num_query_slots, num_group_heads: M and J.
        num_shares: How many programs add to the gradient of a weight.
        strides: Of q, k, v, dout without D.
        readers, scratch: Sizes of the index, and where it and other parts are.
        lengths_stride, scale, is_joint: As in `plan_backward`.

    Returns:
        The launch of each kernel.
    """
    B, N, S, G, D = k.shape
    C, K = chunk_indices.shape[1:]
    M, J = num_query_slots, num_group_heads
    tiles = backward_pool_tiles(M * J, k)
    room, num_segments, row_size = readers.num_partials, readers.num_segments, readers.row_size
    gather = Launch(
        _pool_kernel,
        (B * num_segments * G,),
        *strides,
        lengths_stride,
        scratch.parts,
        C,
        M,
        N,
        num_segments,
        room,
        row_size,
        scale,
        G,
        J,
        D,
        S,
        K,
        is_joint,
        tiles.block_m,
        tiles.block_n,
        tiles.block_d,
        **tiles.options(),
    )
    num_slots = B * C * K
    add_up = Launch(
        _add_up_kernel,
        (triton.cdiv(num_slots, _BLOCK_SLOTS) + B * N * G,),
        scratch.parts,
        C * K,
        N,
        num_segments,
        room,
        row_size,
        num_slots,
        num_shares,
        G,
        D,
        S,
        _BLOCK_SLOTS,
        tiles.block_n,
        tiles.block_d,
    )
    return gather, add_up
