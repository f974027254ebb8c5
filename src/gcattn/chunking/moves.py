"""Moving rows of a tensor by index, with a gradient that moves them back.

Shapes: B batch, L entries.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gcattn.ops.pointwise import take_entries


def gather_columns(x: Tensor, index: Tensor) -> Tensor:
    """Take entries by index, [B, L, *rest] → [*index.shape, *rest]; -1 gives zeros."""
    return take_entries(x, index)


def move_columns(
    x: Tensor, index: Tensor, inverse: Callable[[], Tensor], *, fill: Tensor | int = 0
) -> Tensor:
    """Take entries by index, where no entry is taken twice.

    Args:
        x: Entries, [B, L, *rest].
        index: Which of them goes to each place, [B, *places]; -1 gives `fill`.
        inverse: Returns which place, counted over all of them, each entry goes to, [B, L]; -1: to
            none. Asked where a gradient has to move back.
        fill: A number, or an entry [*rest].
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return take_entries(x, index, fill)
    moved: Tensor = _Move.apply(x, index, inverse())
    if not isinstance(fill, Tensor):
        return moved
    return torch.where((index >= 0).view(index.shape + (1,) * (x.dim() - 2)), moved, fill)


class _Move(torch.autograd.Function):
    """Moving back is the gradient: a second gather, where autograd's own would add one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.num_places = index[0].dim()
        return take_entries(x, index, impl="reference")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        moved = take_entries(gradient.flatten(1, ctx.num_places), inverse, impl="reference")
        return moved, None, None
