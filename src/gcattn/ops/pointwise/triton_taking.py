"""Kernel that takes entries of each row by index.

Letters: B batch, N entries of a row, P places of a row, R values of an entry.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout

# values that one program moves
BLOCK = 2048


# a prompt of another length is no reason to compile anew
@triton.jit(do_not_specialize=["P", "num_places", "stride_index"])
def _take_kernel(
    index_ptr,  # [B, P]
    x_ptr,  # [B, N, R]
    filler_ptr,  # [R] or None
    out_ptr,  # [B, P, R]
    P,
    num_places,
    stride_index,
    stride_x,
    FILL: tl.constexpr,
    R: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """One program owns some places, or a part of one whose entry is wide."""
    place = tl.program_id(0).to(tl.int64) * PLACES + tl.arange(0, PLACES)
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)[None, :]
    exists = place < num_places
    row = place // P
    index = tl.load(index_ptr + row * stride_index + place % P, mask=exists, other=-1)
    is_taken = (index >= 0)[:, None]
    at = row * stride_x + index * R
    x = tl.load(x_ptr + at[:, None] + r, mask=is_taken & (r < R), other=FILL)
    if filler_ptr is not None:
        x = tl.where(is_taken, x, tl.load(filler_ptr + r, mask=r < R, other=0))
    tl.store(out_ptr + place[:, None] * R + r, x, mask=exists[:, None] & (r < R))


def plan_taking(
    index: Layout, x: Layout, filler: Layout | None, fill: int
) -> Callable[..., Tensor]:
    """Prepare a function of indices and entries, each row of which lies in one piece."""
    num_places, R = index.shape.numel(), x.shape[2:].numel()
    P, (stride_index, reads_index), (stride_x, reads_x) = (
        index.shape[1:].numel(),
        _row(index),
        _row(x),
    )
    block = min(triton.next_power_of_2(max(R, 1)), BLOCK)
    places = BLOCK // block
    grid = triton.cdiv(num_places, places), triton.cdiv(R, block)
    launch = Launch(
        _take_kernel, grid, P, num_places, stride_index, stride_x, fill, R, places, block
    )
    shape = (*index.shape, *x.shape[2:])

    def run(index: Tensor, x: Tensor, filler: Tensor | None) -> Tensor:
        out = torch.empty(shape, dtype=x.dtype, device=x.device)
        if num_places and R:
            launch(
                index if reads_index else index.contiguous(),
                x if reads_x else x.contiguous(),
                filler,
                out,
            )
        return out

    return run


def _row(x: Layout) -> tuple[int, bool]:
    """Return the stride between rows, and whether they can be read as they are."""
    row = x._replace(shape=x.shape[1:], strides=x.strides[1:])
    if row.is_contiguous():
        return x.strides[0], True
    return row.shape.numel(), False
