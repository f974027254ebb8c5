"""Sliding-window attention of a single query column, as in decoding; it has no gradient.

A tile of queries would hold one row, and its few programs would walk the keys tile by tile. Here a
program holds the window of a head in registers and loads all of it at once.

Letters as in `tiles`; T keys. Logarithms have base 2: the logits carry a factor of log2(e).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout, allocator
from gcattn.ops.tiles import LOG2_E, LOWEST, load_rows

# bytes of keys that a program holds, and of values
TILE_BYTES = 64 * 1024
NUM_WARPS = 8


@triton.jit(do_not_specialize=["T", "W"])
def _single_kernel(
    q_ptr,  # [B, 1, H, D]
    k_ptr,  # [B, T, G, D]
    v_ptr,
    query_documents_ptr,  # [B, 1] or None
    key_documents_ptr,  # [B, T] or None
    out_ptr,  # [B, 1, H, D]
    q_strides,  # of B, 1, H
    k_strides,  # of B, T, G
    v_strides,
    T,
    W,
    scale,
    H: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one head of one row."""
    pid = tl.program_id(0)
    h, b = (pid % H).to(tl.int64), (pid // H).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    q = tl.load(q_ptr + b * q_strides[0] + h * q_strides[2] + d, mask=d < D, other=0.0)
    q = q.to(tl.float32)
    k_ptr += b * k_strides[0] + h // J * k_strides[2]
    v_ptr += b * v_strides[0] + h // J * v_strides[2]
    if query_documents_ptr is not None:
        document = tl.load(query_documents_ptr + b)
        key_documents_ptr += b * T

    highest = tl.full([], LOWEST, tl.float32)
    total = tl.zeros([], tl.float32)
    mixed = tl.zeros([BLOCK_D], tl.float32)
    for start in range(tl.maximum(T - W, 0), T, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        used = j < T
        k = load_rows(k_ptr, j.to(tl.int64) * k_strides[1], used, True, D, BLOCK_D)
        v = load_rows(v_ptr, j.to(tl.int64) * v_strides[1], used, True, D, BLOCK_D)
        scores = tl.sum(k.to(tl.float32) * q[None, :], 1) * (scale * LOG2_E)
        visible = used
        if query_documents_ptr is not None:
            found = tl.load(key_documents_ptr + j, mask=used, other=0)
            visible = used & (found == document)
        scores = tl.where(visible, scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, 0))
        attention = tl.exp2(scores - new_highest)
        fade = tl.exp2(highest - new_highest)
        total = total * fade + tl.sum(attention, 0)
        mixed = mixed * fade + tl.sum(attention[:, None] * v.to(tl.float32), 0)
        highest = new_highest

    total = tl.where(total == 0, 1.0, total)  # a query that sees nothing gives zero
    out = (mixed / total).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + (b * H + h) * D + d, out, mask=d < D)


def plan_single(
    q: Layout,
    k: Layout,
    v: Layout,
    query_documents: Layout | None,
    key_documents: Layout | None,
    window_size: int,
) -> Callable[..., Tensor]:
    """Prepare a function of the inputs that returns the output, [B, 1, H, D].

    q, k and v may have any strides but D's, documents are contiguous.
    """
    B, _, H, D = q.shape
    T, G = k.shape[1], k.shape[2]
    block_d = triton.next_power_of_2(D)
    block_n = TILE_BYTES // (block_d * k.dtype.itemsize)
    window_size = min(window_size, T)
    launch = Launch(
        _single_kernel,
        (B * H,),
        q.strides[:3],
        k.strides[:3],
        v.strides[:3],
        T,
        window_size,
        D**-0.5,
        H,
        H // G,
        D,
        min(block_n, max(16, triton.next_power_of_2(window_size))),
        block_d,
        num_warps=NUM_WARPS,
        num_stages=1,
    )
    is_empty = 0 in q.shape

    new_out = allocator(q, q.device)

    def run(*inputs: Any) -> Tensor:
        out = new_out(inputs[0])
        if not is_empty:
            launch(*inputs, out)
        return out

    return run
