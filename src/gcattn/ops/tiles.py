"""What the kernels of all operators share: constants, tile sizes, reading and writing rows."""
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import NamedTuple

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# finite, so that a row that has seen nothing yet never meets infinity minus infinity
LOWEST = tl.constexpr(-3.4e38)


class Tiles(NamedTuple):
    """Sizes of one kernel launch."""

    block_m: int  # rows of queries
    block_n: int  # keys
    block_d: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None

    def options(self) -> dict[str, int | None]:
        """Return the options of the compiler."""
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "maxnreg": self.max_registers,
        }


def padded(size: int) -> int:
    """Return the tile size that holds `size`: a power of two that matrix units take."""
    return max(16, triton.next_power_of_2(size))


def warps_for(num_values: int) -> int:
    """Return the warps of a program that moves so many values: eight of a thread are one load."""
    return min(max(num_values // 256, 1), 16)


@triton.jit
def load_rows(ptr, offsets, used, MASKED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Read vectors [rows, D] at `offsets`; rows not used, if MASKED, and d >= D are zero."""
    d = tl.arange(0, BLOCK_D)
    ptrs = ptr + (offsets[:, None] + d[None, :])
    if MASKED:
        x = tl.load(ptrs, mask=used[:, None] & (d < D)[None, :], other=0.0)
    elif D == BLOCK_D:  # no mask: the loads can be wide and asynchronous
        x = tl.load(ptrs)
    else:
        x = tl.load(ptrs, mask=(d < D)[None, :], other=0.0)
    return x


@triton.jit
def store_rows(ptr, offsets, x, used, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write vectors [rows, D] at `offsets` in the dtype of the tensor; rows not used are left."""
    d = tl.arange(0, BLOCK_D)
    ptrs = ptr + (offsets[:, None] + d[None, :])
    tl.store(ptrs, x.to(ptr.dtype.element_ty), mask=used[:, None] & (d < D)[None, :])


@triton.jit
def add_product(total, a, b):
    """Return total + a · b, matrices of one tile each.

    In float32 the product is summed up by itself and added as a whole: one running sum over
    thousands of rows is three times as far off. With + Triton would make it that running sum.
    """
    if a.dtype == tl.float32:
        total = tl.fma(total, 1.0, tl.dot(a, b, input_precision="ieee"))
    else:
        total = tl.dot(a, b, total)
    return total
