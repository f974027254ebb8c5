"""What the Grouped Cross-Attention kernels share: tile sizes, rows and slots.

Letters: B batch, C chunks, M query slots, H query heads, G key/value heads, J = H / G, D head dim,
N chunks in the pool, S slots, K retrieved chunks. The rows of a (chunk, key/value head) are its
M · J queries: all heads of the group share one load of the keys.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl

from gcattn.ops.grouped_cross_attention.reference import MAX_EXPONENT
from gcattn.ops.launch import Layout
from gcattn.ops.tiles import LOG2_E, Tiles, load_rows, padded

_MAX_EXPONENT_LOG2 = tl.constexpr(MAX_EXPONENT * LOG2_E.value)

_Row = tuple[int, int, int, int, int | None]

# (widest head dim, rows, warps, pipeline stages, registers) of 16-bit inputs: the first that fits
_FORWARD = ((64, 64, 4, 3, 128), (128, 64, 4, 5, None), (256, 64, 8, 1, None))
_BACKWARD_QUERIES = ((64, 64, 4, 5, 168), (128, 64, 4, 2, None), (256, 64, 8, 1, None))
_BACKWARD_POOL = ((64, 64, 4, 5, None), (128, 32, 4, 7, None), (256, 32, 8, 1, None))


def forward_tiles(num_rows: int, k: Layout) -> Tiles:
    """Sizes for the forward kernel."""
    return _widen(_choose(_FORWARD, num_rows, k), num_rows, k)


def backward_query_tiles(num_rows: int, k: Layout) -> Tiles:
    """Sizes for the kernel that owns queries."""
    return _widen(_choose(_BACKWARD_QUERIES, num_rows, k), num_rows, k)


def backward_pool_tiles(num_rows: int, k: Layout) -> Tiles:
    """Sizes for the kernel that owns chunks of the pool."""
    return _choose(_BACKWARD_POOL, num_rows, k)


def _widen(tiles: Tiles, num_rows: int, k: Layout) -> Tiles:
    """Let two warpgroups share each load of the keys where query heads are grouped."""
    is_wide = num_rows >= 128 and tiles.block_m == 64 and tiles.block_n <= 64 and k.shape[4] <= 128
    return tiles._replace(block_m=128, num_warps=8) if is_wide else tiles


def _choose(table: tuple[_Row, ...], num_rows: int, k: Layout) -> Tiles:
    block_s, block_d = padded(k.shape[2]), padded(k.shape[4])
    _, block_m, num_warps, num_stages, registers = next(row for row in table if block_d <= row[0])
    if k.dtype == torch.float32:
        # no matrix units: operands live in registers, and twice the bytes in shared memory
        block_m, num_warps, num_stages, registers = 16, 8, 1, None
    elif block_s > 64:
        num_warps, num_stages, registers = 8, 1, None
    block_m = min(block_m, padded(num_rows))
    if block_m < 64 and block_d <= 128:
        num_warps = 4
    return Tiles(block_m, block_s, block_d, num_warps, num_stages, registers)


@triton.jit
def row_offsets(row, g, stride_m, stride_h, J: tl.constexpr):
    """Where each row's query begins: row m · J + j is head j of the group g at slot m."""
    return (row // J) * stride_m + (g * J + row % J) * stride_h


@triton.jit
def load_slots(
    ptr, stride_s, S: tl.constexpr, D: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Read the keys or values of one chunk and head, [S, D]; what lies beyond is zero."""
    s = tl.arange(0, BLOCK_S)
    return load_rows(ptr, s * stride_s, s < S, S != BLOCK_S, D, BLOCK_D)


@triton.jit
def exponentials(x, JOINT: tl.constexpr):
    """2^x; bounded if JOINT, where x is above 0 for a chunk whose weight is below 1."""
    if JOINT:
        x = tl.minimum(x, _MAX_EXPONENT_LOG2)
    return tl.exp2(x)
