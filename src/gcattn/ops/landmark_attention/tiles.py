"""One tile is one block of columns of one head: what all kernels load, and how they are launched.

Letters as in `api`; C blocks of L = C · S columns. Tensors are contiguous.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _places(
    b,
    n,
    head,
    C,
    S: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Return where block n of one head lies and what is within S and D, [BLOCK_S, BLOCK_D]."""
    slot, dim = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    row = (b.to(tl.int64) * C + n) * S + slot
    at = (row[:, None] * HEADS + head) * D + dim[None, :]
    return at, (slot < S)[:, None] & (dim < D)[None, :]


@triton.jit
def load_block(
    x_ptr,
    b,
    n,
    head,
    C,
    S: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Load block n of one head, [BLOCK_S, BLOCK_D]; zero beyond S and D."""
    at, inside = _places(b, n, head, C, S, HEADS, D, BLOCK_S, BLOCK_D)
    if S == BLOCK_S and D == BLOCK_D:
        return tl.load(x_ptr + at)
    return tl.load(x_ptr + at, mask=inside, other=0.0)


@triton.jit
def store_block(
    x_ptr,
    x,
    b,
    n,
    head,
    C,
    S: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Store what `load_block` loads."""
    at, inside = _places(b, n, head, C, S, HEADS, D, BLOCK_S, BLOCK_D)
    tl.store(x_ptr + at, x.to(x_ptr.dtype.element_ty), mask=inside)


@triton.jit
def load_rows(x_ptr, b, n, head, C, S: tl.constexpr, HEADS: tl.constexpr, BLOCK_S: tl.constexpr):
    """Load one number for each column of block n, from [B, L, H]; zero beyond S."""
    slot = tl.arange(0, BLOCK_S)
    row = (b.to(tl.int64) * C + n) * S + slot
    return tl.load(x_ptr + row * HEADS + head, mask=slot < S, other=0.0)


@triton.jit
def own_scores(scores, S: tl.constexpr, BLOCK_S: tl.constexpr):
    """Leave the scores [queries, keys] of the tokens of the own block up to the query."""
    slot = tl.arange(0, BLOCK_S)
    visible = (slot[None, :] <= slot[:, None]) & (slot < S - 1)[None, :]
    return tl.where(visible, scores, float("-inf"))


@triton.jit
def inner_softmax(scores, S: tl.constexpr, BLOCK_S: tl.constexpr):
    """Return the landmark's score [queries] and the softmax over the tokens, [queries, keys]."""
    slot = tl.arange(0, BLOCK_S)
    gate = tl.sum(tl.where((slot == S - 1)[None, :], scores, 0.0), 1)
    scores = tl.where((slot < S - 1)[None, :], scores, float("-inf"))
    inner = tl.exp(scores - tl.max(scores, 1)[:, None])
    return gate, inner / tl.sum(inner, 1)[:, None]


def sizes(q: Tensor, k: Tensor, chunk_size: int) -> dict[str, int]:
    """Return the sizes and options that every kernel takes, by name."""
    L, H, D = q.shape[1:]
    return {
        "C": L // chunk_size,
        "S": chunk_size,
        "H": H,
        "G": k.shape[2],
        "D": D,
        # a matrix product takes tiles of at least 16
        "BLOCK_S": max(16, triton.next_power_of_2(chunk_size)),
        "BLOCK_D": max(16, triton.next_power_of_2(D)),
        # float32 has no matrix units: operands live in registers
        "num_warps": 8 if q.dtype == torch.float32 else 4,
    }
