"""What the kernels of the backward pass leave to each other, in one tensor: one allocation.

Letters: see `tiles`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import NamedTuple

import triton
import triton.language as tl

from gcattn.ops.grouped_cross_attention.readers import Readers

# values that a part's size is rounded up to, so that the next one is aligned
_ALIGNMENT = 32


class Scratch(NamedTuple):
    """Where the parts begin, in float32 values, and how many there are.

    delta, first, like the saved logarithms · shares [B, C, K, G, num_tiles], what each tile of
    queries adds to dweights · partials [B, room, G, 2, BLOCK_S, BLOCK_D], partial sums of dk and dv
    · readers [B, row_size], integers, see `readers`
    """

    shares: int
    partials: int
    readers: int
    size: int

    @property
    def parts(self) -> tuple[int, int, int]:
        """Return what kernels are told."""
        return self[:3]


def lay_out(
    num_deltas: int, num_shares: int, partial_size: int, readers: Readers, batch: int
) -> Scratch:
    """Place the parts one after the other.

    Args:
        num_deltas, num_shares: Of all rows.
        partial_size: Of one partial sum of dk and dv, all heads.
        readers: Sizes of the index.
        batch: B.
    """
    shares = _aligned(num_deltas)
    partials = shares + _aligned(num_shares)
    index = partials + _aligned(batch * readers.num_partials * partial_size)
    return Scratch(shares, partials, index, index + batch * readers.row_size)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


@triton.jit
def find_index(scratch_ptr, parts):
    """Where the integers of the index begin."""
    return (scratch_ptr + parts[2]).to(tl.pointer_type(tl.int32), bitcast=True)
