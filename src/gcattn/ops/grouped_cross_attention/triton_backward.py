"""Grouped Cross-Attention backward on the GPU, deterministic and without atomics.

Two kernels. The first owns queries: it writes dq, delta for the second, and what each tile gives to
dweights. The second owns chunks of the pool: it walks the queries that read its chunk (`readers`)
and writes dk and dv. With a = exp(s) / denominator, found again from the saved logarithm of the
denominator, and da = do · v:

    separately (per row and chunk)   delta = a · da,   dw = sum over rows of delta
    jointly (per row)                delta = do · o,   dw = sum over rows of a · (da - delta)
    both                             ds = w · a · (da - delta)

Jointly a is not divided by w, so the gradient of a weight of zero is found like any other.

Letters: see `tiles`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.grouped_cross_attention.readers import index_sizes, place_readers
from gcattn.ops.grouped_cross_attention.scratch import find_index, lay_out
from gcattn.ops.grouped_cross_attention.tiles import (
    backward_query_tiles,
    exponentials,
    load_slots,
    row_offsets,
)
from gcattn.ops.grouped_cross_attention.triton_backward_pool import plan_pool_gradients
from gcattn.ops.launch import Launch, Layout, allocator
from gcattn.ops.tiles import LOG2_E, add_product, load_rows, store_rows

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


@triton.jit(do_not_specialize=["N", "num_placing", "num_segments", "room", "row_size"])
def _query_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    dout_ptr,
    indices_ptr,  # [B, C, K]
    weights_ptr,  # [B, C, K]
    lengths_ptr,  # [B, N] or None
    out_ptr,  # [B, C, M, H, D] if mixed jointly, or else None
    lse_ptr,  # [B, C, K, G, rows]; [B, C, G, rows] if mixed jointly
    counts_ptr,  # readers of each pool chunk, [B, N]
    dq_ptr,  # [B, C, M, H, D]
    scratch_ptr,  # delta, shares and index are written
    q_strides,  # of B, C, M, H
    k_strides,  # of B, N, S, G
    v_strides,
    dout_strides,  # of B, C, M, H
    lengths_stride,
    parts,  # of scratch
    C,
    M,
    N,
    num_placing,  # programs before the others that place readers
    num_segments,
    room,
    row_size,
    scale,
    G: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One program owns one row tile of one (batch, chunk, kv head): its dq."""
    JOINT: tl.constexpr = out_ptr is not None
    pid = tl.program_id(0) - num_placing
    if pid < 0:
        place_readers(
            indices_ptr, counts_ptr, find_index(scratch_ptr, parts), tl.program_id(0),
            N, C * K, num_segments, room, row_size, BLOCK_P,
        )  # fmt: skip
        return
    num_tiles = tl.cdiv(M * J, BLOCK_M)
    g = pid % G
    tile = (pid // G) % num_tiles
    c = ((pid // G // num_tiles) % C).to(tl.int64)
    b = (pid // G // num_tiles // C).to(tl.int64)

    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    used = row < M * J
    q_ptr += b * q_strides[0] + c * q_strides[1]
    q_offsets = row_offsets(row, g, q_strides[2], q_strides[3], J)
    q = load_rows(q_ptr, q_offsets, used, True, D, BLOCK_D)
    dout_ptr += b * dout_strides[0] + c * dout_strides[1]
    dout_offsets = row_offsets(row, g, dout_strides[2], dout_strides[3], J)
    dout = load_rows(dout_ptr, dout_offsets, used, True, D, BLOCK_D)
    k_ptr += b * k_strides[0] + g * k_strides[3]
    v_ptr += b * v_strides[0] + g * v_strides[3]
    retrieved = (b * C + c) * K
    slots = tl.arange(0, BLOCK_K)
    chosen = tl.load(indices_ptr + retrieved + slots, mask=slots < K, other=-1)
    end = tl.max(tl.where(chosen >= 0, slots + 1, 0), 0)

    chunk = (b * C + c) * M * G * J * D
    offsets = row_offsets(row, g, G * J * D, D, J)
    if JOINT:
        out = load_rows(out_ptr + chunk, offsets, used, True, D, BLOCK_D)
        delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
        per_row = ((b * C + c) * G + g) * M * J + row
        tl.store(scratch_ptr + per_row, delta, mask=used)
        lse = tl.load(lse_ptr + per_row, mask=used, other=0.0)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for slot in range(0, end):
        n = tl.load(indices_ptr + retrieved + slot).to(tl.int64)
        weight = tl.load(weights_ptr + retrieved + slot).to(tl.float32)
        weight = tl.where(n >= 0, weight, 0.0)
        if not JOINT:
            per_row = ((retrieved + slot) * G + g) * M * J + row
            # nothing was saved for an empty slot: an infinite denominator gives it no attention
            lse = tl.load(lse_ptr + per_row, mask=used, other=0.0)
            lse = tl.where(n >= 0, lse, float("inf"))
        n = tl.maximum(n, 0)
        k = load_slots(k_ptr + n * k_strides[1], k_strides[2], S, D, BLOCK_S, BLOCK_D)
        v = load_slots(v_ptr + n * v_strides[1], v_strides[2], S, D, BLOCK_S, BLOCK_D)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        dattention = tl.dot(dout, tl.trans(v), input_precision="ieee")
        attention = exponentials(scores * (scale * LOG2_E) - lse[:, None], JOINT)
        if (lengths_ptr is not None) or S != BLOCK_S:
            length = S
            if lengths_ptr is not None:
                length = tl.load(lengths_ptr + b * lengths_stride + n)
            attention = tl.where((tl.arange(0, BLOCK_S) < length)[None, :], attention, 0.0)
        if JOINT:
            share = tl.sum(attention * (dattention - delta[:, None]), 1)
        else:
            delta = tl.sum(attention * dattention, 1)
            tl.store(scratch_ptr + per_row, delta, mask=used)
            share = delta
        # rows past the end are zero: neither dattention nor delta has anything of them
        at = ((retrieved + slot) * G + g) * num_tiles + tile
        tl.store(scratch_ptr + parts[0] + at, tl.sum(share, 0))
        dscores = attention * (dattention * weight - (delta * weight)[:, None])
        dq = add_product(dq, dscores.to(k.dtype), k)
    store_rows(dq_ptr + chunk, offsets, dq * scale, used, D, BLOCK_D)


def plan_backward(
    dout: Layout,
    q: Layout,
    k: Layout,
    v: Layout,
    chunk_indices: Layout,
    chunk_weights: Layout,
    chunk_lengths: Layout | None,
    out: Layout | None,
    lse: Layout,
    counts: Layout,
    scale: float,
) -> Callable[..., Gradients]:
    """Prepare the backward pass; arguments as for `plan_forward`, dout of any strides but D's.

    Returns:
        A function of dout, q, k, v, chunk_indices, chunk_weights, chunk_lengths, the output (if
        mixed jointly) and the two tensors that the forward pass saved. It returns the gradients of
        q, k, v and chunk_weights.
    """
    B, C, M, H, D = q.shape
    S, G = k.shape[2], k.shape[3]
    K, J = chunk_indices.shape[2], H // G
    shapes, dtype = (q.shape, k.shape, v.shape, chunk_weights.shape), chunk_weights.dtype
    if min(*q.shape, k.shape[1], K) == 0:

        def give_nothing(dout: Tensor, *_: Tensor | None) -> Gradients:
            dq, dk, dv = (dout.new_zeros(shape) for shape in shapes[:3])
            return dq, dk, dv, dout.new_zeros(shapes[3], dtype=dtype)

        return give_nothing

    tiles = backward_query_tiles(M * J, k)
    num_tiles = triton.cdiv(M * J, tiles.block_m)
    strides = (q.strides[:4], k.strides[:4], v.strides[:4], dout.strides[:4])
    lengths_stride = 0 if chunk_lengths is None else chunk_lengths.strides[0]
    readers = index_sizes(chunk_indices, k.shape[1])
    partial_size = 2 * G * tiles.block_n * tiles.block_d
    scratch = lay_out(lse.shape.numel(), B * C * K * G * num_tiles, partial_size, readers, batch=B)
    queries = Launch(
        _query_kernel,
        (readers.num_programs + B * C * num_tiles * G,),
        *strides,
        lengths_stride,
        scratch.parts,
        C,
        M,
        k.shape[1],
        readers.num_programs,
        readers.num_segments,
        readers.num_partials,
        readers.row_size,
        scale,
        G,
        J,
        D,
        S,
        K,
        triton.next_power_of_2(K),
        tiles.block_m,
        tiles.block_n,
        tiles.block_d,
        readers.block_p,
        **tiles.options(),
    )
    gather, add_up = plan_pool_gradients(
        k,
        chunk_indices,
        M,
        J,
        G * num_tiles,
        strides,
        lengths_stride,
        readers,
        scratch,
        scale,
        out is not None,
    )

    new_q, new_k, new_v, new_weights = [allocator(x, dout.device) for x in (q, k, v, chunk_weights)]

    def run(*inputs: Any) -> Gradients:
        dout, q, k, v, indices, weights, lengths, out, lse, counts = inputs
        dq, dk, dv, dweights = new_q(q), new_k(k), new_v(v), new_weights(weights)
        passed = lse.new_empty(scratch.size)
        queries(q, k, v, dout, indices, weights, lengths, out, lse, counts, dq, passed)
        gather(q, k, v, dout, weights, lengths, lse, passed, dk, dv)
        add_up(passed, indices, dk, dv, dweights)
        return dq, dk, dv, dweights

    return run
