"""The short convolution over columns, channel by channel.

Shapes: B batch, L columns, E hidden size, n taps.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan
from gcattn.ops.native import run_kernel, runs_native


def mix_columns(x: Tensor, weight: Tensor, positions: Tensor, *, impl: Impl = "auto") -> Tensor:
    """Add to every column the columns before it, each times its weights.

    Args:
        x: Columns after the n - 1 columns before them, [B, n - 1 + L, E].
        weight: Of each tap and channel, [n, E]; the first is the column's own.
        positions: Of the columns in their document, [B, L] or [1, L]: none reaches beyond its
            document's beginning.
        impl: "triton" is one launch without a gradient; "auto" takes it where it can.

    Returns:
        The mixed columns, [B, L, E].
    """
    inputs = x, weight, positions
    if runs_fused(impl, inputs, _unfit):
        return _plan(keys_of(inputs))(*inputs)
    if impl == "auto" and _fits_kernel(x, weight, positions):
        return _mix_natively(x, weight, positions)
    first = weight.shape[0] - 1
    out = x[:, first:] * weight[0].to(x.dtype)
    for i in range(1, first + 1):
        earlier = x[:, first - i : x.shape[1] - i] * weight[i].to(x.dtype)
        out = out + torch.where((positions >= i).unsqueeze(-1), earlier, 0)
    return out


def _fits_kernel(x: Tensor, weight: Tensor, positions: Tensor) -> bool:
    is_one_column = x.shape[1] == len(weight) and positions.shape == (*x.shape[:1], 1)
    return is_one_column and positions.is_contiguous() and runs_native(len(x), x, weight)


def _mix_natively(x: Tensor, weight: Tensor, positions: Tensor) -> Tensor:
    out = x.new_empty(len(x), 1, x.shape[2])
    run_kernel("mix_columns", x.dtype, (x, weight, positions, out, *x.shape), [out])
    return out


def _unfit(x: Tensor, weight: Tensor, positions: Tensor) -> str:
    if x.dtype not in KERNEL_DTYPES or weight.dtype not in KERNEL_DTYPES:
        return f"takes {KERNEL_DTYPES}, got {x.dtype} and {weight.dtype}"
    return ""


@lru_cache(MAX_PLANS)
def _plan(keys: Keys) -> Callable[..., Tensor]:
    from gcattn.ops.pointwise.triton_convolution import plan_mixing

    return make_plan(plan_mixing, keys, (), num_strided=0)
