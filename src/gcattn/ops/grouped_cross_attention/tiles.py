"""What the Grouped Cross-Attention kernels share: tile sizes, and reading a tile.

Letters: B batch, C chunks, M query slots, H query heads, G key/value heads, J = H / G, D head dim,
N chunks in the pool, S slots, K retrieved chunks. The rows of a (chunk, key/value head) are its
M · J queries: all heads of the group share one load of the keys.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.grouped_cross_attention.reference import MAX_EXPONENT

LOG2_E = tl.constexpr(1.4426950408889634)
# finite, so that a row that has seen nothing yet never meets infinity minus infinity
LOWEST = tl.constexpr(-3.4e38)

_MAX_EXPONENT_LOG2 = tl.constexpr(MAX_EXPONENT * LOG2_E.value)


class Tiles(NamedTuple):
    """Sizes of one kernel launch."""

    block_m: int  # rows of queries
    block_s: int
    block_d: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None


_Row = tuple[int, int, int, int, int | None]

# (widest head dim, rows, warps, pipeline stages, registers) of 16-bit inputs: the first that fits
_FORWARD = ((64, 64, 4, 3, 128), (128, 64, 4, 5, None), (256, 64, 8, 1, None))
_BACKWARD_QUERIES = ((64, 64, 4, 5, 168), (128, 64, 4, 2, None), (256, 64, 8, 1, None))
_BACKWARD_POOL = ((64, 64, 4, 5, None), (128, 32, 4, 7, None), (256, 32, 8, 1, None))


def forward_tiles(num_rows: int, k: Tensor) -> Tiles:
    """Sizes for the forward kernel."""
    return _widen(_choose(_FORWARD, num_rows, k), num_rows, k)


def backward_query_tiles(num_rows: int, k: Tensor) -> Tiles:
    """Sizes for the kernel that owns queries."""
    return _widen(_choose(_BACKWARD_QUERIES, num_rows, k), num_rows, k)


def backward_pool_tiles(num_rows: int, k: Tensor) -> Tiles:
    """Sizes for the kernel that owns chunks of the pool."""
    return _choose(_BACKWARD_POOL, num_rows, k)


def _widen(tiles: Tiles, num_rows: int, k: Tensor) -> Tiles:
    """Let two warpgroups share each load of the keys where query heads are grouped."""
    is_wide = num_rows >= 128 and tiles.block_m == 64 and tiles.block_s <= 64 and k.shape[4] <= 128
    return tiles._replace(block_m=128, num_warps=8) if is_wide else tiles


def _choose(table: tuple[_Row, ...], num_rows: int, k: Tensor) -> Tiles:
    S, D = k.shape[2], k.shape[4]
    block_s, block_d = (max(16, triton.next_power_of_2(size)) for size in (S, D))
    _, block_m, num_warps, num_stages, registers = next(row for row in table if block_d <= row[0])
    if k.dtype == torch.float32:
        # no matrix units: operands live in registers, and twice the bytes in shared memory
        block_m, num_warps, num_stages, registers = 16, 8, 1, None
    elif block_s > 64:
        num_warps, num_stages, registers = 8, 1, None
    block_m = min(block_m, max(16, triton.next_power_of_2(num_rows)))
    if block_m < 64 and block_d <= 128:
        num_warps = 4
    return Tiles(block_m, block_s, block_d, num_warps, num_stages, registers)


@triton.jit
def exponentials(x, JOINT: tl.constexpr):
    """2^x; bounded if JOINT, where x is above 0 for a chunk whose weight is below 1."""
    if JOINT:
        x = tl.minimum(x, _MAX_EXPONENT_LOG2)
    return tl.exp2(x)


@triton.jit
def row_offsets(row, first_head, num_group_heads, stride_m, stride_h):
    """Where each row's query begins: row m · J + j is head j of the group at slot m."""
    slot, head = row // num_group_heads, first_head + row % num_group_heads
    return slot * stride_m + head * stride_h


@triton.jit
def load_rows(ptr, offsets, used, D, BLOCK_D: tl.constexpr):
    """Read queries or their gradients, [rows, D]; rows that are not used and d >= D are zero."""
    d = tl.arange(0, BLOCK_D)
    return tl.load(
        ptr + (offsets[:, None] + d[None, :]), mask=used[:, None] & (d < D)[None, :], other=0.0
    )


@triton.jit
def load_slots(
    ptr, stride_s, S, D, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr, EVEN: tl.constexpr
):
    """Read the keys or values of one chunk and head, [S, D]; what lies beyond is zero."""
    s, d = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    address = ptr + (s[:, None] * stride_s + d[None, :])
    if EVEN:  # no mask: the loads can be wide and asynchronous
        tile = tl.load(address)
    else:
        tile = tl.load(address, mask=(s < S)[:, None] & (d < D)[None, :], other=0.0)
    return tile
