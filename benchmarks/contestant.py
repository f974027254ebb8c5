"""What a contestant is: a name, what it computes, and how its call is made.

A contestant makes its call once, in the memory layout that it likes best, outside of what is timed.

Shapes: B batch, L = C · S columns, C chunks, S slots per chunk.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from benchmarks.inputs import OperatorInputs
from benchmarks.shapes import OperatorShape
from gcattn.ops.grouped_cross_attention.api import Mixing

Computes = Literal["grouped_cross_attention", "sliding_window", "full_attention", "block_sparse"]


class UnavailableError(Exception):
    """A contestant cannot take part here; the message says why."""


@dataclass(frozen=True)
class PreparedCall:
    """A call without arguments, and the tensors that it is differentiated by."""

    run: Callable[[], Tensor]
    leaves: dict[str, Tensor]
    # brings the output and the gradients of q, k, v to [B, L, heads, D]
    as_columns: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contestant:
    """An implementation under its name in tables and results."""

    name: str
    computes: Computes
    prepare: Callable[[OperatorInputs], PreparedCall]
    flops: Callable[[OperatorShape], int] | None = None  # of the forward; None: not counted
    # somebody else's: if it is wrong or fails, that is recorded and no failure of the run
    is_foreign: bool = False
    # how retrieved chunks share the softmax, where it computes Grouped Cross-Attention
    mixing: Mixing = "separate"


def leaf(x: Tensor) -> Tensor:
    """Return a contiguous tensor that gradients are taken by."""
    return x.detach().contiguous().requires_grad_()


def heads_first(x: Tensor) -> Tensor:
    """Return columns [B, C, S, heads, D] as a leaf [B, heads, L, D]."""
    return leaf(x.flatten(1, 2).transpose(1, 2))


def by_columns(x: Tensor) -> Tensor:
    """Bring [B, heads, L, D] to [B, L, heads, D]."""
    return x.transpose(1, 2)
