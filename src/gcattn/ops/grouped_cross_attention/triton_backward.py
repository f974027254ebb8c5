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

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.grouped_cross_attention.readers import index_readers
from gcattn.ops.grouped_cross_attention.tiles import (
    LOG2_E,
    backward_query_tiles,
    exponentials,
    load_rows,
    load_slots,
    row_offsets,
)
from gcattn.ops.grouped_cross_attention.triton_backward_pool import pool_gradients

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


@triton.jit
def _query_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    dout_ptr,
    indices_ptr,  # [B, C, K]
    weights_ptr,  # [B, C, K]
    lengths_ptr,  # [B, N]
    out_ptr,  # [B, C, M, H, D], read if JOINT
    lse_ptr,  # [B, C, K, G, rows]; [B, C, G, rows] if JOINT
    dq_ptr,  # [B, C, M, H, D]
    delta_ptr,  # like lse
    shares_ptr,  # [B, C, K, G, num_tiles], what each tile adds to dweights
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
    num_tiles,
    scale,
    JOINT: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one row tile of one (batch, chunk, kv head): its dq."""
    pid = tl.program_id(0)
    g = pid % G
    tile = (pid // G) % num_tiles
    c = (pid // G // num_tiles) % C
    b = (pid // G // num_tiles // C).to(tl.int64)

    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    used = row < M * J
    chunk = c.to(tl.int64)
    q = load_rows(
        q_ptr + b * stride_qb + chunk * stride_qc,
        row_offsets(row, g * J, J, stride_qm, stride_qh),
        used,
        D,
        BLOCK_D,
    )
    dout = load_rows(
        dout_ptr + b * stride_ob + chunk * stride_oc,
        row_offsets(row, g * J, J, stride_om, stride_oh),
        used,
        D,
        BLOCK_D,
    )
    k_ptr += b * stride_kb + g * stride_kg
    v_ptr += b * stride_vb + g * stride_vg
    retrieved = (b * C + c) * K
    slots = tl.arange(0, BLOCK_K)
    chosen = tl.load(indices_ptr + retrieved + slots, mask=slots < K, other=-1)
    end = tl.max(tl.where(chosen >= 0, slots + 1, 0), 0)

    offsets = row_offsets(row, g * J, J, G * J * D, D)
    if JOINT:
        out = load_rows(out_ptr + (b * C + c) * M * G * J * D, offsets, used, D, BLOCK_D)
        delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
        per_row = ((b * C + c) * G + g) * M * J + row
        tl.store(delta_ptr + per_row, delta, mask=used)
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
        k = load_slots(k_ptr + n * stride_kn, stride_ks, S, D, BLOCK_S, BLOCK_D, EVEN)
        v = load_slots(v_ptr + n * stride_vn, stride_vs, S, D, BLOCK_S, BLOCK_D, EVEN)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        dattention = tl.dot(dout, tl.trans(v), input_precision="ieee")
        attention = exponentials(scores * (scale * LOG2_E) - lse[:, None], JOINT)
        if HAS_LENGTHS or not EVEN:
            length = S
            if HAS_LENGTHS:
                length = tl.load(lengths_ptr + b * stride_lb + n)
            attention = tl.where((tl.arange(0, BLOCK_S) < length)[None, :], attention, 0.0)
        if JOINT:
            share = tl.sum(attention * (dattention - delta[:, None]), 1)
        else:
            delta = tl.sum(attention * dattention, 1)
            tl.store(delta_ptr + per_row, delta, mask=used)
            share = delta
        # rows past the end are zero: neither dattention nor delta has anything of them
        tl.store(shares_ptr + ((retrieved + slot) * G + g) * num_tiles + tile, tl.sum(share, 0))
        dscores = attention * (dattention * weight - (delta * weight)[:, None])
        dq = tl.dot(dscores.to(k.dtype), k, dq, input_precision="ieee")

    d = tl.arange(0, BLOCK_D)
    tl.store(
        dq_ptr + (b * C + c) * M * G * J * D + (offsets[:, None] + d[None, :]),
        (dq * scale).to(dq_ptr.dtype.element_ty),
        mask=used[:, None] & (d < D)[None, :],
    )


@triton.jit
def _weights_kernel(
    indices_ptr,  # [B, C, K]
    shares_ptr,  # [B, C, K, G, num_tiles]
    dweights_ptr,  # [B, C, K]
    size,
    BLOCK: tl.constexpr,
):
    """One program adds what the tiles of all heads give to the weight of one retrieved chunk."""
    slot = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, size, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(shares_ptr + slot * size + i, mask=i < size, other=0.0)
    # behind the last filled slot nothing was written
    is_filled = tl.load(indices_ptr + slot) >= 0
    dweight = tl.where(is_filled, tl.sum(total, 0), 0.0)
    tl.store(dweights_ptr + slot, dweight.to(dweights_ptr.dtype.element_ty))


def grouped_cross_attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    out: Tensor | None,
    lse: Tensor,
    scale: float,
) -> Gradients:
    """Launch the backward kernels; the output is given where chunks were mixed jointly.

    Returns the gradients of q, k, v and chunk_weights.
    """
    B, C, M, H, D = q.shape
    S, G = k.shape[2], k.shape[3]
    K, J = chunk_indices.shape[2], H // G
    if q.numel() == 0 or k.shape[1] == 0 or K == 0:
        inputs = (q, k, v, chunk_weights)
        return tuple(torch.zeros_like(x, memory_format=torch.contiguous_format) for x in inputs)  # type: ignore[return-value]
    tiles = backward_query_tiles(M * J, k)
    num_tiles = triton.cdiv(M * J, tiles.block_m)
    delta = torch.empty_like(lse)
    shares = torch.empty((B, C, K, G, num_tiles), dtype=torch.float32, device=q.device)
    dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    strides = (*q.stride()[:4], *k.stride()[:4], *v.stride()[:4], *dout.stride()[:4])
    length_stride = 0 if chunk_lengths is None else chunk_lengths.stride(0)
    sizes = {"C": C, "M": M, "G": G, "J": J, "D": D, "S": S, "K": K, "scale": scale}
    flags = {
        "JOINT": out is not None,
        "HAS_LENGTHS": chunk_lengths is not None,
        "EVEN": tiles.block_s == S and tiles.block_d == D,
    }
    _query_kernel[(B * C * num_tiles * G,)](
        q,
        k,
        v,
        dout,
        chunk_indices,
        chunk_weights,
        chunk_lengths,
        out,
        lse,
        dq,
        delta,
        shares,
        *strides,
        length_stride,
        num_tiles=num_tiles,
        BLOCK_K=triton.next_power_of_2(K),
        BLOCK_M=tiles.block_m,
        BLOCK_S=tiles.block_s,
        BLOCK_D=tiles.block_d,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        maxnreg=tiles.max_registers,
        **sizes,
        **flags,
    )
    readers = index_readers(chunk_indices, k.shape[1])
    dk, dv = pool_gradients(
        dout,
        q,
        k,
        v,
        readers,
        chunk_weights,
        chunk_lengths,
        lse,
        delta,
        strides=(*strides, length_stride),
        sizes=sizes,
        flags=flags,
    )
    dweights = torch.empty(chunk_weights.shape, dtype=chunk_weights.dtype, device=q.device)
    size = G * num_tiles
    block = min(1024, triton.next_power_of_2(size))
    _weights_kernel[(B * C * K,)](chunk_indices, shares, dweights, size, BLOCK=block)
    return dq, dk, dv, dweights
