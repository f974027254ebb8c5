"""Kernel that writes a column of keys and values into rings.

Letters: B batch, W columns of a ring, N values of a column.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from gcattn.ops.launch import Launch, Layout


@triton.jit
def _write_kernel(
    keys_ptr,  # [B, N]
    values_ptr,
    at_ptr,  # [B]
    key_ring_ptr,  # [B, W, N]
    value_ring_ptr,
    W,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program owns one row."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    used = n < N
    place = (b * W + tl.load(at_ptr + b)) * N + n
    tl.store(key_ring_ptr + place, tl.load(keys_ptr + b * N + n, mask=used), mask=used)
    tl.store(value_ring_ptr + place, tl.load(values_ptr + b * N + n, mask=used), mask=used)


def plan_writing(
    keys: Layout, values: Layout, at: Layout, key_ring: Layout, value_ring: Layout
) -> Launch:
    """Prepare a function of contiguous keys, values, places and rings."""
    B, W = key_ring.shape[:2]
    N = key_ring.shape[2:].numel()
    return Launch(_write_kernel, (B,), W, N, triton.next_power_of_2(N))
