"""Counted operations and bytes, and the floor that a device sets under them.

Two operations per multiplication and addition, in scores and in mixing; the softmax is not counted.
Only what must be computed counts: slots that the first chunks cannot fill, and keys in front of the
first column, do not.

Letters: B batch, L columns, C chunks, H query heads, G key/value heads, D head dim, S slots per
chunk, K retrieved chunks, W window.
"""

from dataclasses import dataclass

from benchmarks.shapes import OperatorShape

# forward and backward together, in forwards: five products instead of two in the backward
FORWARD_BACKWARD = 3.5


@dataclass(frozen=True)
class Ceilings:
    """What this device reaches at best, measured."""

    bytes_per_second: float
    flops_per_second: float


def filled_slots(num_chunks: int, top_k: int) -> int:
    """Return how many slots C chunks fill, at most K each and only with chunks before them."""
    short = min(top_k, num_chunks)
    return short * (short - 1) // 2 + (num_chunks - short) * top_k


def cross_attention_flops(shape: OperatorShape) -> int:
    """Return the operations of a forward pass: 4·B·S²·H·D for each filled slot."""
    slots = filled_slots(shape.num_chunks, shape.top_k)
    per_slot = 4 * shape.chunk_size**2 * shape.heads * shape.head_dim
    return shape.batch * slots * per_slot


def full_attention_flops(shape: OperatorShape) -> int:
    """Return the operations of causal attention: 2·B·H·L·(L + 1)·D."""
    pairs = shape.length * (shape.length + 1) // 2
    return 4 * shape.batch * shape.heads * shape.head_dim * pairs


def window_flops(shape: OperatorShape) -> int:
    """Return the operations of a sliding window: 4·B·H·D·L·W less the keys before the first."""
    window = min(shape.window, shape.length)
    pairs = shape.length * window - window * (window - 1) // 2
    return 4 * shape.batch * shape.heads * shape.head_dim * pairs


def least_bytes(shape: OperatorShape, *, backward: bool) -> int:
    """Return the bytes that have to move if everything is read and written once."""
    values = shape.batch * shape.length * shape.head_dim * shape.torch_dtype.itemsize
    query, pool = shape.heads * values, shape.kv_heads * values
    forward = 2 * query + 2 * pool  # q and the output; k and v
    # reads q, k, v and the gradient of the output, writes the gradients of q, k and v
    return forward + (3 * query + 4 * pool if backward else 0)


def floor_ms(num_flops: float, num_bytes: float, ceilings: Ceilings) -> float:
    """Return the time below which no implementation can come on this device."""
    by_bytes = num_bytes / ceilings.bytes_per_second
    return 1e3 * max(by_bytes, num_flops / ceilings.flops_per_second)
