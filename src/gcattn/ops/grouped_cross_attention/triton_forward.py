"""Grouped Cross-Attention forward on the GPU: keys and values are read through the indices.

No gathered copy of the pool exists. A retrieved chunk fits one tile, so its softmax needs no
rescaling, and what is read from different chunks simply adds up (paper, section 3.2). That is also
what lets few queries (decoding) be spread over many programs, one per chunk.

Letters: see `tiles`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.grouped_cross_attention.tiles import (
    LOG2_E,
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
def _forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    indices_ptr,  # [B, C, K]
    weights_ptr,  # [B, C, K]
    lengths_ptr,  # [B, N]
    out_ptr,  # [splits, B, C, M, H, D]
    lse_ptr,  # [B, C, K, G, rows], base-2 logarithm of each softmax's denominator
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
        numerators, peak, total = attend_to_slots(
            scores, length, scale * LOG2_E, sink_log2, HAS_LENGTHS or not EVEN, HAS_SINK, BLOCK_S
        )
        attention = numerators * (weight / total)[:, None]
        read = tl.dot(attention.to(v.dtype), v, read, input_precision="ieee")
        if SAVE_LSE:
            per_row = ((retrieved + slot) * G + g) * M * J + row
            tl.store(lse_ptr + per_row, peak + tl.log2(total), mask=used)

    d = tl.arange(0, BLOCK_D)
    out_ptr += split.to(tl.int64) * out_size + (b * C + c) * M * G * J * D
    offsets = row_offsets(row, g * J, J, G * J * D, D)
    tl.store(
        out_ptr + (offsets[:, None] + d[None, :]),
        read.to(out_ptr.dtype.element_ty),
        mask=used[:, None] & (d < D)[None, :],
    )


def grouped_cross_attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    sink_logit: float | None,
    scale: float,
    save_lse: bool,
) -> tuple[Tensor, Tensor]:
    """Launch the forward kernel; the tensors may have any strides but D's.

    Returns:
        The output, [B, C, M, H, D], and what the backward pass needs, [B, C, K, G, M · J], or [0].
    """
    B, C, M, H, D = q.shape
    S, G = k.shape[2], k.shape[3]
    K, J = chunk_indices.shape[2], H // G
    shape = (B, C, K, G, M * J) if save_lse else (0,)
    lse = torch.empty(shape, dtype=torch.float32, device=q.device)
    if q.numel() == 0 or k.shape[1] == 0 or K == 0:
        return torch.zeros_like(q, memory_format=torch.contiguous_format), lse
    tiles = forward_tiles(M * J, k)
    num_tiles = triton.cdiv(M * J, tiles.block_m)
    num_programs = B * C * num_tiles * G
    num_splits = min(K, triton.cdiv(FEW_PROGRAMS, num_programs))
    chunks_per_split = triton.cdiv(K, num_splits)
    num_splits = triton.cdiv(K, chunks_per_split)
    dtype = q.dtype if num_splits == 1 else torch.float32
    out = torch.empty((num_splits, *q.shape), dtype=dtype, device=q.device)
    _forward_kernel[(num_programs, num_splits)](
        q,
        k,
        v,
        chunk_indices,
        chunk_weights,
        chunk_lengths,
        out,
        lse,
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
        HAS_LENGTHS=chunk_lengths is not None,
        HAS_SINK=sink_logit is not None,
        EVEN=tiles.block_s == S and tiles.block_d == D,
        SAVE_LSE=save_lse,
        BLOCK_K=triton.next_power_of_2(K),
        BLOCK_M=tiles.block_m,
        BLOCK_S=tiles.block_s,
        BLOCK_D=tiles.block_d,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        maxnreg=tiles.max_registers,
    )
    # a fixed order of adding, so the result does not depend on which program came first
    return (out[0] if num_splits == 1 else out.sum(0).to(q.dtype)), lse
