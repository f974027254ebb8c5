"""Grouped Cross-Attention forward on the GPU: keys and values are read through the indices.

No gathered copy of the pool exists. A retrieved chunk fits one tile, so its softmax needs no
rescaling, and what is read from different chunks simply adds up (paper, section 3.2). Mixed
jointly, the chunks share one online softmax. Few queries (decoding) are spread over many programs,
one per chunk, whose results a second kernel adds.

Letters: see `tiles`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.grouped_cross_attention.tiles import (
    LOG2_E,
    LOWEST,
    forward_tiles,
    load_rows,
    load_slots,
    row_offsets,
)

# below this many programs a GPU is mostly idle, and chunks are spread over more of them
FEW_PROGRAMS = 256


@triton.jit
def attend_to_slots(
    scores,
    length,
    scale_log2,
    sink_log2,
    RAGGED: tl.constexpr,
    HAS_SINK: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Softmax of raw scores [rows, S]: numerators, their base-2 peak, and their denominator."""
    if RAGGED:
        s = tl.arange(0, BLOCK_S)
        scores = tl.where((s < length)[None, :], scores, -float("inf"))
    peak = tl.max(scores, 1) * scale_log2
    if HAS_SINK:
        peak = tl.maximum(peak, sink_log2)
    elif RAGGED:
        peak = tl.where(peak == -float("inf"), 0.0, peak)
    numerators = tl.exp2(scores * scale_log2 - peak[:, None])
    total = tl.sum(numerators, 1)
    if HAS_SINK:
        total += tl.exp2(sink_log2 - peak)
    elif RAGGED:
        total = tl.where(total == 0.0, 1.0, total)
    return numerators, peak, total


@triton.jit
def attend_jointly(
    scores,
    weight,
    length,
    peak,
    total,
    scale_log2,
    RAGGED: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Take one chunk's raw scores [rows, S] into the running base-2 peak and sum of each row.

    Returns the chunk's numerators and the factor on what was read before.
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


@triton.jit
def _forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    indices_ptr,  # [B, C, K]
    weights_ptr,  # [B, C, K]
    lengths_ptr,  # [B, N]
    out_ptr,  # [splits, B, C, M, H, D]
    lse_ptr,  # [B, C, K, G, rows], base-2 logarithm of each softmax's denominator;
    # [splits, B, C, G, rows] if JOINT
    stride_qb,
    stride_qc,
    stride_qm,
    stride_qh,
    stride_kb,
    stride_kn,
    stride_ks,
    stride_kg,
    stride_vb,
    stride_vn,
    stride_vs,
    stride_vg,
    stride_lb,
    C,
    M,
    G,
    J,
    D,
    S,
    K,
    num_tiles,
    chunks_per_split,
    out_size,
    scale,
    sink_log2,
    JOINT: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    HAS_SINK: tl.constexpr,
    EVEN: tl.constexpr,
    SAVE_LSE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one row tile of one (batch, chunk, kv head) and loops over its chunks."""
    pid, split = tl.program_id(0), tl.program_id(1)
    g = pid % G
    tile = (pid // G) % num_tiles
    c = (pid // G // num_tiles) % C
    b = (pid // G // num_tiles // C).to(tl.int64)

    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    used = row < M * J
    q_offsets = row_offsets(row, g * J, J, stride_qm, stride_qh)
    q = load_rows(q_ptr + b * stride_qb + c.to(tl.int64) * stride_qc, q_offsets, used, D, BLOCK_D)
    k_ptr += b * stride_kb + g * stride_kg
    v_ptr += b * stride_vb + g * stride_vg
    retrieved = (b * C + c) * K
    begin = split * chunks_per_split
    slots = tl.arange(0, BLOCK_K)
    inside = (slots >= begin) & (slots < tl.minimum(begin + chunks_per_split, K))
    chosen = tl.load(indices_ptr + retrieved + slots, mask=inside, other=-1)
    # empty slots usually come last: the loop ends in front of them
    end = tl.max(tl.where(chosen >= 0, slots + 1, 0), 0)

    read = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if JOINT:
        peak = tl.full([BLOCK_M], LOWEST, tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        if HAS_SINK:  # once, whatever the splits
            peak = tl.where(split == 0, sink_log2, peak)
            total = tl.where(split == 0, 1.0, total)
    for slot in range(begin, end):
        n = tl.load(indices_ptr + retrieved + slot).to(tl.int64)
        weight = tl.load(weights_ptr + retrieved + slot).to(tl.float32)
        weight = tl.where(n >= 0, weight, 0.0)
        n = tl.maximum(n, 0)
        k = load_slots(k_ptr + n * stride_kn, stride_ks, S, D, BLOCK_S, BLOCK_D, EVEN)
        v = load_slots(v_ptr + n * stride_vn, stride_vs, S, D, BLOCK_S, BLOCK_D, EVEN)
        length = S
        if HAS_LENGTHS:
            length = tl.load(lengths_ptr + b * stride_lb + n)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if JOINT:
            attention, fade, peak, total = attend_jointly(
                scores,
                weight,
                length,
                peak,
                total,
                scale * LOG2_E,
                HAS_LENGTHS or not EVEN,
                BLOCK_S,
            )
            read = read * fade[:, None]
        else:
            numerators, peak, total = attend_to_slots(
                scores,
                length,
                scale * LOG2_E,
                sink_log2,
                HAS_LENGTHS or not EVEN,
                HAS_SINK,
                BLOCK_S,
            )
            attention = numerators * (weight / total)[:, None]
            if SAVE_LSE:
                per_row = ((retrieved + slot) * G + g) * M * J + row
                tl.store(lse_ptr + per_row, peak + tl.log2(total), mask=used)
        read = tl.dot(attention.to(v.dtype), v, read, input_precision="ieee")

    if JOINT:
        read, lse = _normalise(read, peak, total)
        if SAVE_LSE:
            per_row = ((b * C + c) * G + g) * M * J + row
            lse_ptr += split.to(tl.int64) * (out_size // D)
            tl.store(lse_ptr + per_row, lse, mask=used)
    d = tl.arange(0, BLOCK_D)
    out_ptr += split.to(tl.int64) * out_size + (b * C + c) * M * G * J * D
    offsets = row_offsets(row, g * J, J, G * J * D, D)
    tl.store(
        out_ptr + (offsets[:, None] + d[None, :]),
        read.to(out_ptr.dtype.element_ty),
        mask=used[:, None] & (d < D)[None, :],
    )


@triton.jit
def _add_splits_kernel(
    parts_ptr,  # [splits, B, C, M, H, D]
    part_lse_ptr,  # [splits, B, C, G, rows]
    out_ptr,  # [B, C, M, H, D]
    lse_ptr,  # [B, C, G, rows]
    M,
    G,
    J,
    D,
    num_tiles,
    num_splits,
    out_size,
    JOINT: tl.constexpr,
    SAVE_LSE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program adds what the splits of one row tile of one (batch, chunk, kv head) read."""
    pid = tl.program_id(0)
    g = pid % G
    tile = (pid // G) % num_tiles
    chunk = (pid // G // num_tiles).to(tl.int64)
    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    used = row < M * J
    d = tl.arange(0, BLOCK_D)
    at = chunk * M * G * J * D + (row_offsets(row, g * J, J, G * J * D, D)[:, None] + d[None, :])
    inside = used[:, None] & (d < D)[None, :]
    per_row = (chunk * G + g) * M * J + row

    peak = tl.full([BLOCK_M], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    read = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # a fixed order of adding, so the result does not depend on which program came first
    for _ in range(0, num_splits):
        part = tl.load(parts_ptr + at, mask=inside, other=0.0)
        parts_ptr += out_size
        if JOINT:
            lse = tl.load(part_lse_ptr + per_row, mask=used, other=float("inf"))
            part_lse_ptr += out_size // D
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
        if SAVE_LSE:
            tl.store(lse_ptr + per_row, lse, mask=used)
    tl.store(out_ptr + at, read.to(out_ptr.dtype.element_ty), mask=inside)


def grouped_cross_attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    lse: Tensor | None,
    sink_logit: float | None,
    scale: float,
    is_joint: bool,
) -> Tensor:
    """Launch the forward kernels; the tensors may have any strides but D's.

    Args:
        q, k, v, chunk_indices, chunk_weights, chunk_lengths, sink_logit, scale: As in `api`.
        lse: Where what the backward pass needs is written, see `autograd.lse_shape`.
        is_joint: One softmax over all chunks.

    Returns:
        The output, [B, C, M, H, D].
    """
    B, C, M, H, D = q.shape
    S, G = k.shape[2], k.shape[3]
    K, J = chunk_indices.shape[2], H // G
    if q.numel() == 0 or k.shape[1] == 0 or K == 0:
        return torch.zeros_like(q, memory_format=torch.contiguous_format)
    tiles = forward_tiles(M * J, k)
    num_tiles = triton.cdiv(M * J, tiles.block_m)
    num_programs = B * C * num_tiles * G
    num_splits = min(K, triton.cdiv(FEW_PROGRAMS, num_programs))
    chunks_per_split = triton.cdiv(K, num_splits)
    num_splits = triton.cdiv(K, chunks_per_split)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    parts, part_lse = out, lse
    if num_splits > 1:
        parts = torch.empty((num_splits, *q.shape), dtype=torch.float32, device=q.device)
        if is_joint:
            shape = (num_splits, B, C, G, M * J)
            part_lse = torch.empty(shape, dtype=torch.float32, device=q.device)
    _forward_kernel[(num_programs, num_splits)](
        q,
        k,
        v,
        chunk_indices,
        chunk_weights,
        chunk_lengths,
        parts,
        part_lse,
        *q.stride()[:4],
        *k.stride()[:4],
        *v.stride()[:4],
        0 if chunk_lengths is None else chunk_lengths.stride(0),
        C=C,
        M=M,
        G=G,
        J=J,
        D=D,
        S=S,
        K=K,
        num_tiles=num_tiles,
        chunks_per_split=chunks_per_split,
        out_size=q.numel(),
        scale=scale,
        sink_log2=0.0 if sink_logit is None else sink_logit * LOG2_E.value,
        JOINT=is_joint,
        HAS_LENGTHS=chunk_lengths is not None,
        HAS_SINK=sink_logit is not None,
        EVEN=tiles.block_s == S and tiles.block_d == D,
        SAVE_LSE=part_lse is not None,
        BLOCK_K=triton.next_power_of_2(K),
        BLOCK_M=tiles.block_m,
        BLOCK_S=tiles.block_s,
        BLOCK_D=tiles.block_d,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        maxnreg=tiles.max_registers,
    )
    if num_splits > 1:
        _add_splits_kernel[(num_programs,)](
            parts,
            part_lse,
            out,
            lse,
            M=M,
            G=G,
            J=J,
            D=D,
            num_tiles=num_tiles,
            num_splits=num_splits,
            out_size=q.numel(),
            JOINT=is_joint,
            SAVE_LSE=lse is not None,
            BLOCK_M=tiles.block_m,
            BLOCK_D=tiles.block_d,
        )
    return out
