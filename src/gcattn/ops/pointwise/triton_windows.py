"""Kernel that puts kept columns before new ones and copies the last: keys and values in one launch.

Letters: B batch, P kept columns, L new columns, N values of a column.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout
from gcattn.ops.pointwise.columns import Pair

# values that one program moves
BLOCK = 2048
NOTHING = None, None


@triton.jit
def _move_one(new_ptr, kept_ptr, whole_ptr, last_ptr, at_new, at_kept, at_whole, at_last, n, used):
    """Move columns of keys, or of values; places below zero are outside."""
    used_new = used & (at_new >= 0)
    x = tl.load(new_ptr + at_new + n, mask=used_new, other=0.0)
    if kept_ptr is not None:
        is_kept = used & (at_new < 0)
        x = tl.where(is_kept, tl.load(kept_ptr + at_kept + n, mask=is_kept, other=0.0), x)
        tl.store(whole_ptr + at_whole + n, x, mask=used)
    if last_ptr is not None:
        tl.store(last_ptr + at_last + n, x, mask=used & (at_last >= 0))


# a prompt of another length is no reason to compile anew
@triton.jit(do_not_specialize=["P", "L", "num_last", "first", "num_columns"])
def _extend_kernel(
    keys_ptr,  # [B, L, N]
    values_ptr,
    kept_keys_ptr,  # [B, P, N] or None
    kept_values_ptr,
    all_keys_ptr,  # [B, P + L, N], or None where nothing is kept
    all_values_ptr,
    last_keys_ptr,  # [B, num_last, N] or None
    last_values_ptr,
    P,
    L,
    num_last,
    first,  # column of each row with which the programs begin
    num_columns,  # from there, in all rows
    N: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program owns some columns, or a part of one that is wide."""
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    used = (column < num_columns)[:, None] & (n < N)
    moved = P + L - first
    row, c = column // moved, first + column % moved
    last = c - (P + L - num_last)
    # where a column does not take part its place is below zero
    at_new = tl.where(c >= P, (row * L + c - P) * N, -1)[:, None]
    at_kept = ((row * P + c) * N)[:, None]
    at_whole = ((row * (P + L) + c) * N)[:, None]
    at_last = tl.where(last >= 0, (row * num_last + last) * N, -1)[:, None]
    _move_one(
        keys_ptr, kept_keys_ptr, all_keys_ptr, last_keys_ptr,
        at_new, at_kept, at_whole, at_last, n, used,
    )  # fmt: skip
    _move_one(
        values_ptr, kept_values_ptr, all_values_ptr, last_values_ptr,
        at_new, at_kept, at_whole, at_last, n, used,
    )  # fmt: skip


def plan_extension(
    keys: Layout, values: Layout, *kept_and_options: Any
) -> Callable[..., tuple[Pair, Pair]]:
    """Prepare a function of contiguous new and, if there are any, kept keys and values."""
    *kept, num_last, is_copied = kept_and_options
    (B, L), heads, P = keys.shape[:2], keys.shape[2:], kept[0].shape[1] if kept else 0
    N, T = heads.numel(), P + L
    first = 0 if kept else T - num_last
    num_columns = B * (T - first)
    block = min(triton.next_power_of_2(max(N, 1)), BLOCK)
    columns = BLOCK // block
    grid = triton.cdiv(num_columns, columns), triton.cdiv(N, block)
    launch = Launch(_extend_kernel, grid, P, L, num_last, first, num_columns, N, columns, block)
    is_needed = bool(num_columns * N) and (bool(kept) or is_copied)
    whole_shape, last_shape = (B, T, *heads), (B, num_last, *heads)

    def run(keys: Tensor, values: Tensor, *kept: Tensor) -> tuple[Pair, Pair]:
        whole = _pair_like(keys, whole_shape) if kept else (keys, values)
        if is_copied:
            last = _pair_like(keys, last_shape)
        else:
            last = whole[0][:, T - num_last :], whole[1][:, T - num_last :]
        if is_needed:
            launch(
                keys,
                values,
                *(kept or NOTHING),
                *(whole if kept else NOTHING),
                *(last if is_copied else NOTHING),
            )
        return whole, last

    return run


def _pair_like(x: Tensor, shape: tuple[int, ...]) -> Pair:
    return x.new_empty(shape), x.new_empty(shape)
