"""Grouped Cross-Attention backward, the half that owns chunks of the pool: dk and dv.

Letters: see `tiles`; what is computed: see `triton_backward`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.grouped_cross_attention.readers import ReadersIndex
from gcattn.ops.grouped_cross_attention.tiles import (
    LOG2_E,
    backward_pool_tiles,
    exponentials,
    load_rows,
    load_slots,
    row_offsets,
)


@triton.jit
def _pool_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    dout_ptr,
    pairs_ptr,  # [B, P]
    segments_ptr,  # [B, num_segments, 4]
    weights_ptr,  # [B, C, K]
    lengths_ptr,  # [B, N]
    lse_ptr,
    delta_ptr,
    dk_ptr,  # [B, N, S, G, D]
    dv_ptr,
    partial_ptr,  # [B, room, G, 2, BLOCK_S, BLOCK_D]
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
    stride_ob,
    stride_oc,
    stride_om,
    stride_oh,
    stride_lb,
    C,
    M,
    G,
    J,
    D,
    S,
    K,
    N,
    num_tiles,
    num_segments,
    room,
    scale,
    JOINT: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one segment of the readers of one (batch, pool chunk, kv head)."""
    pid = tl.program_id(0)
    g = pid % G
    b = (pid // G // num_segments).to(tl.int64)
    segments_ptr += (b * num_segments + (pid // G) % num_segments) * 4
    n = tl.load(segments_ptr).to(tl.int64)
    if n >= 0:
        first = tl.load(segments_ptr + 1)
        end = tl.load(segments_ptr + 2)
        partial = tl.load(segments_ptr + 3)
        k = load_slots(
            k_ptr + b * stride_kb + n * stride_kn + g * stride_kg,
            stride_ks, S, D, BLOCK_S, BLOCK_D, EVEN,
        )  # fmt: skip
        v = load_slots(
            v_ptr + b * stride_vb + n * stride_vn + g * stride_vg,
            stride_vs, S, D, BLOCK_S, BLOCK_D, EVEN,
        )  # fmt: skip
        s, d = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
        length = S
        if HAS_LENGTHS:
            length = tl.load(lengths_ptr + b * stride_lb + n)
        pairs_ptr += b * C * K
        q_ptr += b * stride_qb
        dout_ptr += b * stride_ob

        dk = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
        dv = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
        for step in range(first * num_tiles, end * num_tiles):
            pair = tl.load(pairs_ptr + step // num_tiles)
            c = (pair // K).to(tl.int64)
            row = (step % num_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
            used = row < M * J
            q = load_rows(
                q_ptr + c * stride_qc,
                row_offsets(row, g * J, J, stride_qm, stride_qh),
                used,
                D,
                BLOCK_D,
            )
            dout = load_rows(
                dout_ptr + c * stride_oc,
                row_offsets(row, g * J, J, stride_om, stride_oh),
                used,
                D,
                BLOCK_D,
            )
            weight = tl.load(weights_ptr + b * C * K + pair).to(tl.float32)
            softmax = b * C + c if JOINT else b * C * K + pair
            per_row = (softmax * G + g) * M * J + row
            lse = tl.load(lse_ptr + per_row, mask=used, other=0.0)
            delta = tl.load(delta_ptr + per_row, mask=used, other=0.0)
            # slots are rows here, so the results feed the matrix units without being transposed
            scores = tl.dot(k, tl.trans(q), input_precision="ieee")
            dattention = tl.dot(v, tl.trans(dout), input_precision="ieee")
            attention = exponentials(scores * (scale * LOG2_E) - lse[None, :], JOINT) * weight
            if HAS_LENGTHS or not EVEN:
                attention = tl.where((s < length)[:, None], attention, 0.0)
            dv = tl.dot(attention.to(dout.dtype), dout, dv, input_precision="ieee")
            dscores = attention * (dattention - delta[None, :])
            dk = tl.dot(dscores.to(q.dtype), q, dk, input_precision="ieee")

        dk *= scale
        if partial >= 0:
            at = ((b * room + partial) * G + g) * 2 * BLOCK_S * BLOCK_D
            at += s[:, None] * BLOCK_D + d[None, :]
            tl.store(partial_ptr + at, dk)
            tl.store(partial_ptr + at + BLOCK_S * BLOCK_D, dv)
        else:
            inside = (s < S)[:, None] & (d < D)[None, :]
            at = ((b * N + n) * S * G + g) * D + s[:, None] * (G * D) + d[None, :]
            tl.store(dk_ptr + at, dk.to(dk_ptr.dtype.element_ty), mask=inside)
            tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _add_partials_kernel(
    partial_ptr,
    partials_ptr,  # [B, N, 2]
    dk_ptr,
    dv_ptr,
    G,
    D,
    S,
    N,
    room,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program adds the partial sums of one (batch, pool chunk, kv head) in their order."""
    pid = tl.program_id(0)
    g = pid % G
    n = (pid // G) % N
    b = (pid // G // N).to(tl.int64)
    first = tl.load(partials_ptr + (b * N + n) * 2)
    count = tl.load(partials_ptr + (b * N + n) * 2 + 1)
    if count > 0:
        s, d = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
        dk = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
        dv = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
        for i in range(first, first + count):
            read = ((b * room + i) * G + g) * 2 * BLOCK_S * BLOCK_D
            read += s[:, None] * BLOCK_D + d[None, :]
            dk += tl.load(partial_ptr + read)
            dv += tl.load(partial_ptr + read + BLOCK_S * BLOCK_D)
        inside = (s < S)[:, None] & (d < D)[None, :]
        at = ((b * N + n) * S * G + g) * D + s[:, None] * (G * D) + d[None, :]
        tl.store(dk_ptr + at, dk.to(dk_ptr.dtype.element_ty), mask=inside)
        tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), mask=inside)


def pool_gradients(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    readers: ReadersIndex,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    lse: Tensor,
    delta: Tensor,
    *,
    strides: tuple[int, ...],
    sizes: dict[str, float],
    flags: dict[str, bool],
) -> tuple[Tensor, Tensor]:
    """Launch the kernels of dk and dv.

    Args:
        dout, q, k, v, chunk_weights, chunk_lengths: As in the forward pass.
        readers: Who reads each chunk.
        lse: Logarithms of the denominators, [B, C, K, G, M · J]; [B, C, G, M · J] if JOINT.
        delta: See `triton_backward`, same shape.
        strides: Of q, k, v, dout without D, then of chunk_lengths.
        sizes: C, M, G, J, D, S, K and scale.
        flags: JOINT, HAS_LENGTHS and EVEN.
    """
    B, N, S, G, D = k.shape
    num_rows = lse.shape[-1]
    tiles = backward_pool_tiles(num_rows, k)
    num_segments, room = readers.segments.shape[1], readers.num_partials
    dk = torch.empty(k.shape, dtype=k.dtype, device=k.device)
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    shape = (B, room, G, 2, tiles.block_s, tiles.block_d)
    partial = torch.empty(shape, dtype=torch.float32, device=k.device)
    blocks = {"BLOCK_S": tiles.block_s, "BLOCK_D": tiles.block_d}
    _pool_kernel[(B * num_segments * G,)](
        q,
        k,
        v,
        dout,
        readers.pairs,
        readers.segments,
        chunk_weights,
        chunk_lengths,
        lse,
        delta,
        dk,
        dv,
        partial,
        *strides,
        N=N,
        num_tiles=triton.cdiv(num_rows, tiles.block_m),
        num_segments=num_segments,
        room=room,
        BLOCK_M=tiles.block_m,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        maxnreg=tiles.max_registers,
        **sizes,
        **flags,
        **blocks,
    )
    _add_partials_kernel[(B * N * G,)](
        partial, readers.partials, dk, dv, G=G, D=D, S=S, N=N, room=room, **blocks
    )
    return dk, dv
