"""Grouped Cross-Attention forward on the GPU: keys and values are read through the indices.

No gathered copy of the pool exists. A retrieved chunk fits one tile, so its softmax needs no
rescaling, and what is read from different chunks simply adds up (paper, section 3.2). Mixed
jointly, the chunks share one online softmax. Few queries (decoding) are spread over many programs,
one per chunk, whose results a second kernel adds.

Letters: see `tiles`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.grouped_cross_attention.readers import count_readers, index_sizes
from gcattn.ops.grouped_cross_attention.tiles import forward_tiles, load_slots, row_offsets
from gcattn.ops.launch import Launch, Layout, allocator
from gcattn.ops.tiles import LOG2_E, LOWEST, add_product, load_rows, store_rows

Results = tuple[Tensor, Tensor | None, Tensor | None]

# below this many programs a GPU is mostly idle, and chunks are spread over more of them
FEW_PROGRAMS = 256


@triton.jit
def _attend_to_slots(
    scores, length, scale_log2, sink_log2, RAGGED: tl.constexpr, BLOCK_S: tl.constexpr
):
    """Softmax of raw scores [rows, S]: numerators, their base-2 peak, and their denominator."""
    if RAGGED:
        s = tl.arange(0, BLOCK_S)
        scores = tl.where((s < length)[None, :], scores, -float("inf"))
    peak = tl.max(scores, 1) * scale_log2
    if sink_log2 is not None:
        peak = tl.maximum(peak, sink_log2)
    elif RAGGED:
        peak = tl.where(peak == -float("inf"), 0.0, peak)
    numerators = tl.exp2(scores * scale_log2 - peak[:, None])
    total = tl.sum(numerators, 1)
    if sink_log2 is not None:
        total += tl.exp2(sink_log2 - peak)
    elif RAGGED:
        total = tl.where(total == 0.0, 1.0, total)
    return numerators, peak, total


@triton.jit
def _attend_jointly(
    scores, weight, length, peak, total, scale_log2, RAGGED: tl.constexpr, BLOCK_S: tl.constexpr
):
    """Take one chunk's raw scores [rows, S] into the running base-2 peak and sum of each row.

    Returns the chunk's numerators and the factor on what was read before, then peak and sum.
    """
    prior = tl.where(weight > 0.0, tl.log2(tl.maximum(weight, 1.2e-38)), -float("inf"))
    scores = scores * scale_log2 + prior
    if RAGGED:
        s = tl.arange(0, BLOCK_S)
        scores = tl.where((s < length)[None, :], scores, -float("inf"))
    new_peak = tl.maximum(peak, tl.max(scores, 1))
    numerators = tl.exp2(scores - new_peak[:, None])
    fade = tl.exp2(peak - new_peak)
    return numerators, fade, new_peak, total * fade + tl.sum(numerators, 1)


@triton.jit
def _normalise(read, peak, total):
    """Divide by the sum; a row that saw nothing is zero, and its infinite logarithm keeps it so."""
    is_blind = total == 0.0
    total = tl.where(is_blind, 1.0, total)
    lse = tl.where(is_blind, float("inf"), peak + tl.log2(total))
    return read / total[:, None], lse


@triton.jit(do_not_specialize=["N", "num_counting"])
def _forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    indices_ptr,  # [B, C, K]
    weights_ptr,  # [B, C, K]
    lengths_ptr,  # [B, N] or None
    out_ptr,  # [splits, B, C, M, H, D]
    # base-2 logarithm of each softmax's denominator, [B, C, K, G, rows] or, if JOINT,
    # [splits, B, C, G, rows]; or None
    lse_ptr,
    counts_ptr,  # readers of each pool chunk, [B, N], or None
    q_strides,  # of B, C, M, H
    k_strides,  # of B, N, S, G
    v_strides,
    lengths_stride,
    C,
    M,
    N,
    num_counting,  # programs before the others that count readers
    scale,
    sink_log2,  # or None
    G: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    K: tl.constexpr,
    JOINT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One program owns one row tile of one (batch, chunk, kv head) and loops over its chunks."""
    RAGGED: tl.constexpr = (lengths_ptr is not None) or S != BLOCK_S
    pid, split = tl.program_id(0) - num_counting, tl.program_id(1)
    if counts_ptr is not None:  # noqa: SIM102 (Triton leaves it out only if it stands alone)
        if pid < 0:
            if split == 0:
                count_readers(indices_ptr, counts_ptr, tl.program_id(0), N, C * K, BLOCK_P)
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
    k_ptr += b * k_strides[0] + g * k_strides[3]
    v_ptr += b * v_strides[0] + g * v_strides[3]
    retrieved = (b * C + c) * K
    per_split = tl.cdiv(K, tl.num_programs(1))
    begin = split * per_split
    slots = tl.arange(0, BLOCK_K)
    inside = (slots >= begin) & (slots < tl.minimum(begin + per_split, K))
    chosen = tl.load(indices_ptr + retrieved + slots, mask=inside, other=-1)
    # empty slots usually come last: the loop ends before them
    end = tl.max(tl.where(chosen >= 0, slots + 1, 0), 0)

    read = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if JOINT:
        peak = tl.full([BLOCK_M], LOWEST, tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        if sink_log2 is not None:  # once, whatever the splits
            peak = tl.where(split == 0, sink_log2, peak)
            total = tl.where(split == 0, 1.0, total)
    for slot in range(begin, end):
        n = tl.load(indices_ptr + retrieved + slot).to(tl.int64)
        weight = tl.load(weights_ptr + retrieved + slot).to(tl.float32)
        weight = tl.where(n >= 0, weight, 0.0)
        n = tl.maximum(n, 0)
        k = load_slots(k_ptr + n * k_strides[1], k_strides[2], S, D, BLOCK_S, BLOCK_D)
        v = load_slots(v_ptr + n * v_strides[1], v_strides[2], S, D, BLOCK_S, BLOCK_D)
        length = S
        if lengths_ptr is not None:
            length = tl.load(lengths_ptr + b * lengths_stride + n)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if JOINT:
            attention, fade, peak, total = _attend_jointly(
                scores, weight, length, peak, total, scale * LOG2_E, RAGGED, BLOCK_S
            )
            read = read * fade[:, None]
        else:
            numerators, peak, total = _attend_to_slots(
                scores, length, scale * LOG2_E, sink_log2, RAGGED, BLOCK_S
            )
            attention = numerators * (weight / total)[:, None]
            if lse_ptr is not None:
                per_row = ((retrieved + slot) * G + g) * M * J + row
                tl.store(lse_ptr + per_row, peak + tl.log2(total), mask=used)
        read = add_product(read, attention.to(v.dtype), v)

    chunk = b * C + c
    # what a split writes lies after that of all chunks of the splits before
    chunk += split.to(tl.int64) * ((tl.num_programs(0) - num_counting) // (G * num_tiles))
    if JOINT:
        read, lse = _normalise(read, peak, total)
        if lse_ptr is not None:
            tl.store(lse_ptr + (chunk * G + g) * M * J + row, lse, mask=used)
    out_ptr += chunk * M * G * J * D
    store_rows(out_ptr, row_offsets(row, g, G * J * D, D, J), read, used, D, BLOCK_D)


@triton.jit
def _add_splits_kernel(
    parts_ptr,  # [splits, B, C, M, H, D]
    part_lse_ptr,  # [splits, B, C, G, rows], read if JOINT
    out_ptr,  # [B, C, M, H, D]
    lse_ptr,  # [B, C, G, rows] or None, written if JOINT
    M,
    num_splits,
    G: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    JOINT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program adds what the splits of one row tile of one (batch, chunk, kv head) read."""
    pid = tl.program_id(0)
    num_tiles = tl.cdiv(M * J, BLOCK_M)
    num_chunks = (tl.num_programs(0) // (G * num_tiles)).to(tl.int64)
    g = pid % G
    row = (pid // G) % num_tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    used = row < M * J
    chunk = (pid // G // num_tiles).to(tl.int64)
    at = chunk * M * G * J * D
    offsets = row_offsets(row, g, G * J * D, D, J)
    per_row = (chunk * G + g) * M * J + row

    peak = tl.full([BLOCK_M], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    read = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # a fixed order of adding, so the result does not depend on which program came first
    for _ in range(0, num_splits):
        part = load_rows(parts_ptr + at, offsets, used, True, D, BLOCK_D)
        parts_ptr += num_chunks * M * G * J * D
        if JOINT:
            lse = tl.load(part_lse_ptr + per_row, mask=used, other=float("inf"))
            part_lse_ptr += num_chunks * G * M * J
            lse = tl.where(lse == float("inf"), -float("inf"), lse)  # nothing in this split
            new_peak = tl.maximum(peak, lse)
            fade, share = tl.exp2(peak - new_peak), tl.exp2(lse - new_peak)
            read = read * fade[:, None] + part * share[:, None]
            total = total * fade + share
            peak = new_peak
        else:
            read += part
    if JOINT:
        read, lse = _normalise(read, peak, total)
        if lse_ptr is not None:
            tl.store(lse_ptr + per_row, lse, mask=used)
    store_rows(out_ptr + at, offsets, read, used, D, BLOCK_D)


def plan_forward(
    q: Layout,
    k: Layout,
    v: Layout,
    chunk_indices: Layout,
    chunk_weights: Layout,
    chunk_lengths: Layout | None,
    sink_logit: float | None,
    scale: float,
    is_joint: bool,
    save_lse: bool,
) -> Callable[..., Results]:
    """Prepare the forward pass; q, k and v may have any strides but D's, the rest is contiguous.

    Args:
        q, k, v, chunk_indices, chunk_weights, chunk_lengths: Layouts of the inputs.
        sink_logit, scale, is_joint, save_lse: As in `autograd`.

    Returns:
        A function of q, k, v, chunk_indices, chunk_weights and chunk_lengths. It returns the
        output, [B, C, M, H, D], and what the backward pass needs, if asked for: the logarithms of
        the denominators and the number of readers of each chunk.
    """
    B, C, M, H, D = q.shape
    S, G = k.shape[2], k.shape[3]
    K, J = chunk_indices.shape[2], H // G
    lse_shape: tuple[int, ...] = (B, C, *(() if is_joint else (K,)), G, M * J)
    q_shape, counts_shape = q.shape, k.shape[:2]

    def saved_by(q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if not save_lse:
            return None, None
        lse = q.new_empty(lse_shape, dtype=torch.float32)
        return lse, q.new_empty(counts_shape, dtype=torch.int32)

    if min(*q.shape, k.shape[1], K) == 0:
        return lambda q, *_: (q.new_zeros(q_shape), *saved_by(q))

    tiles = forward_tiles(M * J, k)
    num_programs = B * C * G * triton.cdiv(M * J, tiles.block_m)
    num_splits = min(K, triton.cdiv(FEW_PROGRAMS, num_programs))
    num_splits = triton.cdiv(K, triton.cdiv(K, num_splits))
    readers = index_sizes(chunk_indices, k.shape[1])
    num_counting = readers.num_programs if save_lse else 0
    forward = Launch(
        _forward_kernel,
        (num_counting + num_programs, num_splits),
        q.strides[:4],
        k.strides[:4],
        v.strides[:4],
        0 if chunk_lengths is None else chunk_lengths.strides[0],
        C,
        M,
        k.shape[1],
        num_counting,
        scale,
        None if sink_logit is None else sink_logit * LOG2_E.value,
        G,
        J,
        D,
        S,
        K,
        is_joint,
        triton.next_power_of_2(K),
        tiles.block_m,
        tiles.block_n,
        tiles.block_d,
        readers.block_p,
        **tiles.options(),
    )
    add_splits = Launch(
        _add_splits_kernel,
        (num_programs,),
        M,
        num_splits,
        G,
        J,
        D,
        is_joint,
        tiles.block_m,
        tiles.block_d,
    )

    new_out = allocator(q, q.device)

    def run(*inputs: Any) -> Results:
        q = inputs[0]
        out = new_out(q)
        lse, counts = saved_by(q)
        if num_splits == 1:
            forward(*inputs, out, lse, counts)
            return out, lse, counts
        parts, part_lse = q.new_empty((num_splits, *q_shape), dtype=torch.float32), lse
        if is_joint:
            part_lse = q.new_empty((num_splits, *lse_shape), dtype=torch.float32)
        forward(*inputs, parts, part_lse, counts)
        add_splits(parts, part_lse, out, lse)
        return out, lse, counts

    return run
