"""Moving rows of a tensor by index, with a gradient that moves them back.

Shapes: B batch, L entries.
"""

from typing import Any

import torch
from torch import Tensor


def gather_columns(x: Tensor, index: Tensor) -> Tensor:
    """Take entries by index, [B, L, *rest] → [*index.shape, *rest]; -1 gives zeros."""
    if x.shape[1] == 0:  # there is nothing to take, and no index that could be clamped to
        return x.new_zeros(*index.shape, *x.shape[2:])
    rows = torch.arange(x.shape[0], device=x.device).view(-1, *[1] * (index.dim() - 1))
    taken = x[rows, index.clamp_min(0)]
    return torch.where((index >= 0).view(index.shape + (1,) * (x.dim() - 2)), taken, 0)


def move_columns(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """Take entries by index, as `gather_columns`, where no entry is taken twice.

    Args:
        x: Entries, [B, L, *rest].
        index: Which of them goes to each place, [B, *places]; -1 gives zeros.
        inverse: Which place, counted over all of them, each entry goes to, [B, L]; -1: to none.
    """
    moved: Tensor = _Move.apply(x, index, inverse)
    return moved


class _Move(torch.autograd.Function):
    """Moving back is the gradient: a second gather, where autograd's own would add one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.num_places = index[0].dim()
        return gather_columns(x, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gather_columns(gradient.flatten(1, ctx.num_places), inverse), None, None
