"""What the sliding-window kernels share: tile sizes, and which tiles see each other.

Letters: B batch, L query columns, P cached columns, H query heads, G key/value heads, J = H / G,
D head dim, W window. The rows of a key/value head are its L · J queries, row i · J + h being head h
of the group at query i: all heads of a group share one load of the keys.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)


class Tiles(NamedTuple):
    """Sizes of one kernel launch."""

    block_m: int  # rows of queries
    block_n: int  # keys
    block_d: int
    num_warps: int
    num_stages: int
    max_registers: int | None


_Row = tuple[int, int, int, int, int, int | None]

# (widest head dim, rows, keys, warps, pipeline stages, registers): the first that fits
FORWARD: tuple[_Row, ...] = (
    (64, 64, 64, 4, 3, 128),
    (128, 64, 64, 4, 3, 128),
    (256, 128, 32, 8, 2, None),
)
BACKWARD_QUERIES: tuple[_Row, ...] = (
    (64, 64, 64, 4, 3, 168),
    (128, 64, 64, 4, 2, None),
    (256, 64, 32, 8, 2, None),
)
BACKWARD_KEYS: tuple[_Row, ...] = (
    (64, 64, 64, 4, 3, None),
    (128, 32, 64, 4, 3, None),
    (256, 32, 32, 8, 1, None),
)
# float32 has no matrix units: operands live in registers, and take twice the shared memory
_FULL_PRECISION: tuple[_Row, ...] = (
    (64, 32, 32, 8, 1, None),
    (128, 16, 32, 8, 1, None),
    (256, 16, 16, 8, 1, None),
)


def choose_tiles(table: tuple[_Row, ...], num_rows: int, k: Tensor) -> Tiles:
    """Sizes from a table for inputs like `k`; few rows, as in decoding, get a small tile."""
    block_d = max(16, triton.next_power_of_2(k.shape[3]))
    is_full = k.dtype == torch.float32
    table = _FULL_PRECISION if is_full else table
    _, block_m, block_n, num_warps, num_stages, registers = next(
        r for r in table if block_d <= r[0]
    )
    few_rows = max(16, triton.next_power_of_2(num_rows))
    if few_rows < min(block_m, 64) and not is_full:
        num_warps, registers = 4, None
    return Tiles(min(block_m, few_rows), block_n, block_d, num_warps, num_stages, registers)


@triton.jit
def load_tile(
    ptr, offsets, used, D, MASKED: tl.constexpr, EVEN_D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Read vectors [rows, D] at `offsets`; rows not used, if MASKED, and d >= D are zero."""
    d = tl.arange(0, BLOCK_D)
    ptrs = ptr + (offsets[:, None] + d[None, :])
    if MASKED:
        x = tl.load(ptrs, mask=used[:, None] & (d < D)[None, :], other=0.0)
    elif EVEN_D:
        x = tl.load(ptrs)
    else:
        x = tl.load(ptrs, mask=(d < D)[None, :], other=0.0)
    return x


@triton.jit
def key_tiles(first, last, W, BLOCK_N: tl.constexpr):
    """Where the keys of query columns first … last begin, and which tiles all of them see whole.

    Returns the first tile's first key, and begin and end of the tiles that need no mask.
    """
    begin = tl.maximum(first - W + 1, 0) // BLOCK_N * BLOCK_N
    full_begin = tl.cdiv(tl.maximum(last - W + 1, 0), BLOCK_N) * BLOCK_N
    full_end = tl.maximum((first + 1) // BLOCK_N * BLOCK_N, full_begin)
    return begin, full_begin, full_end


@triton.jit
def are_of_document(documents_ptr, begin, end, document, BLOCK: tl.constexpr):
    """Say whether columns begin … end - 1 are all of one document."""
    num_others = tl.zeros([BLOCK], tl.int32)
    for start in range(begin, end, BLOCK):
        j = start + tl.arange(0, BLOCK)
        found = tl.load(documents_ptr + j, mask=j < end, other=0)
        num_others += ((found != document) & (j < end)).to(tl.int32)
    return tl.sum(num_others, 0) == 0
