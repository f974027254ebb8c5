"""Grouped Cross-Attention of a single query slot, as in decoding; it has no gradient.

A program holds all that one head retrieves in registers and asks for all of it at once, in place of
many programs whose results a second kernel adds.

Letters: see `tiles`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout, allocator
from gcattn.ops.tiles import LOG2_E, LOWEST

# bytes of keys that a program holds, and of values
TILE_BYTES = 64 * 1024
# a program that goes through more of them would take longer than many programs
MAX_TILES = 2
NUM_WARPS = 8


@triton.jit
def _single_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    indices_ptr,  # [B, 1, K]
    weights_ptr,  # [B, 1, K]
    lengths_ptr,  # [B, N] or None
    out_ptr,  # [B, 1, 1, H, D]
    q_strides,  # of B, 1, 1, H
    k_strides,  # of B, N, S, G
    v_strides,
    lengths_stride,
    scale,
    sink_log2,  # or None
    H: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    K: tl.constexpr,
    JOINT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one head of one row."""
    pid = tl.program_id(0)
    h, b = (pid % H).to(tl.int64), (pid // H).to(tl.int64)
    d, s = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_S)
    q = tl.load(q_ptr + b * q_strides[0] + h * q_strides[3] + d, mask=d < D, other=0.0)
    q = q.to(tl.float32)
    k_ptr += b * k_strides[0] + h // J * k_strides[3] + d[None, None, :]
    v_ptr += b * v_strides[0] + h // J * v_strides[3] + d[None, None, :]

    peak = tl.full([], LOWEST, tl.float32)
    total = tl.zeros([], tl.float32)
    if JOINT and sink_log2 is not None:
        peak = tl.zeros([], tl.float32) + sink_log2
        total += 1.0
    read = tl.zeros([BLOCK_D], tl.float32)
    for start in tl.static_range(0, K, BLOCK_K):
        slot = start + tl.arange(0, BLOCK_K)
        n = tl.load(indices_ptr + b * K + slot, mask=slot < K, other=-1).to(tl.int64)
        weight = tl.load(weights_ptr + b * K + slot, mask=slot < K, other=0.0).to(tl.float32)
        is_chosen = n >= 0
        weight, n = tl.where(is_chosen, weight, 0.0), tl.maximum(n, 0)
        used = (is_chosen[:, None] & (s < S)[None, :])[:, :, None] & (d < D)[None, None, :]
        k_at = n[:, None] * k_strides[1] + s[None, :] * k_strides[2]
        v_at = n[:, None] * v_strides[1] + s[None, :] * v_strides[2]
        k = tl.load(k_ptr + k_at[:, :, None], mask=used, other=0.0)  # [BLOCK_K, BLOCK_S, BLOCK_D]
        v = tl.load(v_ptr + v_at[:, :, None], mask=used, other=0.0)
        scores = tl.sum(k.to(tl.float32) * q[None, None, :], 2) * (scale * LOG2_E)
        length = tl.full([BLOCK_K], S, tl.int64)
        if lengths_ptr is not None:
            length = tl.load(lengths_ptr + b * lengths_stride + n).to(tl.int64)
        visible = (s[None, :] < length[:, None]) & is_chosen[:, None]
        if JOINT:
            prior = tl.where(weight > 0.0, tl.log2(tl.maximum(weight, 1.2e-38)), -float("inf"))
            scores = tl.where(visible, scores + prior[:, None], -float("inf"))
            new_peak = tl.maximum(peak, tl.max(tl.max(scores, 1), 0))
            attention = tl.exp2(scores - new_peak)
            fade = tl.exp2(peak - new_peak)
            total = total * fade + tl.sum(tl.sum(attention, 1), 0)
            read = read * fade
            peak = new_peak
        else:
            scores = tl.where(visible, scores, -float("inf"))
            peaks = tl.max(scores, 1)
            if sink_log2 is not None:
                peaks = tl.maximum(peaks, sink_log2)
            peaks = tl.where(peaks == -float("inf"), 0.0, peaks)
            attention = tl.exp2(scores - peaks[:, None])
            totals = tl.sum(attention, 1)
            if sink_log2 is not None:
                totals += tl.exp2(sink_log2 - peaks)
            attention *= (weight / tl.where(totals == 0.0, 1.0, totals))[:, None]
        read += tl.sum(tl.sum(attention[:, :, None] * v.to(tl.float32), 1), 0)
    if JOINT:  # a row that saw nothing is zero
        read = read / tl.where(total == 0.0, 1.0, total)
    tl.store(out_ptr + (b * H + h) * D + d, read.to(out_ptr.dtype.element_ty), mask=d < D)


def fits_single(q: Layout, k: Layout, chunk_indices: Layout) -> bool:
    """Say whether this kernel is for the inputs of a call."""
    is_empty = min(*q.shape, k.shape[1], chunk_indices.shape[2]) == 0
    if q.shape[1] * q.shape[2] != 1 or is_empty:
        return False
    num_tiles = triton.cdiv(chunk_indices.shape[2], _chunks_of_tile(k))
    return num_tiles <= MAX_TILES


def _chunks_of_tile(k: Layout) -> int:
    block_s, block_d = triton.next_power_of_2(k.shape[2]), triton.next_power_of_2(k.shape[4])
    return max(1, TILE_BYTES // (block_s * block_d * k.dtype.itemsize))


def plan_single(
    q: Layout,
    k: Layout,
    v: Layout,
    chunk_indices: Layout,
    chunk_weights: Layout,
    chunk_lengths: Layout | None,
    sink_logit: float | None,
    scale: float,
    is_joint: bool,
) -> Callable[..., Tensor]:
    """Prepare a function of the inputs that returns the output, [B, 1, 1, H, D].

    q, k and v may have any strides but D's, the rest is contiguous.
    """
    B, H, D = q.shape[0], q.shape[3], q.shape[4]
    S, G, K = k.shape[2], k.shape[3], chunk_indices.shape[2]
    launch = Launch(
        _single_kernel,
        (B * H,),
        q.strides[:4],
        k.strides[:4],
        v.strides[:4],
        0 if chunk_lengths is None else chunk_lengths.strides[0],
        scale,
        None if sink_logit is None else sink_logit * LOG2_E.value,
        H,
        H // G,
        D,
        S,
        K,
        is_joint,
        min(_chunks_of_tile(k), triton.next_power_of_2(K)),
        triton.next_power_of_2(S),
        triton.next_power_of_2(D),
        num_warps=NUM_WARPS,
        num_stages=1,
    )

    new_out = allocator(q, q.device)

    def run(*inputs: Any) -> Tensor:
        out = new_out(inputs[0])
        launch(*inputs, out)
        return out

    return run
