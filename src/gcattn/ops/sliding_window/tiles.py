"""What the sliding-window kernels share: tile sizes, and which tiles see each other.

Letters: B batch, L query columns, P cached columns, H query heads, G key/value heads, J = H / G,
D head dim, W window. The rows of a key/value head are its L · J queries, row i · J + h being head h
of the group at query i: all heads of a group share one load of the keys.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl

from gcattn.ops.launch import Layout
from gcattn.ops.tiles import Tiles, padded

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


def choose_tiles(table: tuple[_Row, ...], num_rows: int, k: Layout) -> Tiles:
    """Sizes from a table for inputs like `k`; few rows, as in decoding, get a small tile."""
    block_d = padded(k.shape[3])
    is_full = k.dtype == torch.float32
    table = _FULL_PRECISION if is_full else table
    _, block_m, block_n, num_warps, num_stages, registers = next(
        r for r in table if block_d <= r[0]
    )
    few_rows = padded(num_rows)
    if few_rows < min(block_m, 64) and not is_full:
        num_warps, registers = 4, None
    return Tiles(min(block_m, few_rows), block_n, block_d, num_warps, num_stages, registers)


@triton.jit
def key_tiles(first, last, W, BLOCK_N: tl.constexpr):
    """Find where the keys of query columns first … last begin, and which tiles all see whole.

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
