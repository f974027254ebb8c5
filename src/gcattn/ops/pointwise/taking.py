"""Taking entries of each row by index.

Shapes: B batch, N entries.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan

TAKEN_DTYPES = (*KERNEL_DTYPES, torch.int64)


def take_entries(
    x: Tensor, index: Tensor, fill: Tensor | int = 0, *, impl: Impl = "auto"
) -> Tensor:
    """Take entries by index, [B, N, *rest] → [*index.shape, *rest]; -1 gives `fill`.

    Args:
        x: Entries.
        index: Which of them goes to each place, int64 [B, *places].
        fill: A number, or an entry [*rest] in the dtype of `x`.
        impl: "triton" is one launch without a gradient; "auto" takes it where it can.
    """
    filler, number = (fill, 0) if isinstance(fill, Tensor) else (None, fill)
    inputs = (x, index) if filler is None else (x, index, filler)
    if runs_fused(impl, inputs, _unfit):
        return _plan(keys_of((index, x, filler)), number)(index, x, filler)
    if x.shape[1] == 0:  # there is nothing to take, and no index that could be clamped to
        empty = x.new_zeros(*index.shape, *x.shape[2:])
        return empty + fill if filler is not None or number else empty
    rows = torch.arange(x.shape[0], device=x.device).view(-1, *[1] * (index.dim() - 1))
    taken = x[rows, index.clamp_min(0)]
    return torch.where((index >= 0).view(index.shape + (1,) * (x.dim() - 2)), taken, fill)


def _unfit(x: Tensor, index: Tensor, filler: Tensor | None = None) -> str:
    if x.dtype not in TAKEN_DTYPES:
        return f"takes {TAKEN_DTYPES}, got {x.dtype}"
    if filler is not None and (filler.dtype != x.dtype or filler.shape != x.shape[2:]):
        return f"fills with an entry, {list(x.shape[2:])} {x.dtype}, got {list(filler.shape)}"
    return ""


@lru_cache(MAX_PLANS)
def _plan(keys: Keys, number: int) -> Callable[..., Tensor]:
    from gcattn.ops.pointwise.triton_taking import plan_taking

    return make_plan(plan_taking, keys, (number,), num_strided=2)
