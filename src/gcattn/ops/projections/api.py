"""Linear maps of the same few rows.

A matrix product of one row reads its weight and little else. Libraries start a kernel for each, and
most of its time passes before the first byte arrives; here one launch reads up to three weights.

Shapes: n input size, N output size of a map.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan

MAX_ROWS, MAX_MAPS = 4, 3


def project_few_rows(
    x: Tensor, weights: Sequence[Tensor], *, impl: Impl = "auto"
) -> tuple[Tensor, ...]:
    """Apply linear maps [N, n] to the same x, [..., n] → [..., N] each.

    Args:
        x: Input.
        weights: One for each map.
        impl: "triton" takes up to 4 rows and 3 maps and has no gradient; "auto" takes it where it
            can.
    """
    if shares_a_launch(x, weights, impl):
        inputs = x, *weights
        return _plan(keys_of(inputs))(*inputs)
    return tuple(F.linear(x, weight) for weight in weights)


def shares_a_launch(x: Tensor, weights: Sequence[Tensor], impl: Impl = "auto") -> bool:
    """Say whether `project_few_rows` is one launch.

    Raises:
        ValueError: `impl` is "triton", which can't do this.
    """
    return runs_fused(impl, (x, *weights), _unfit)


def _unfit(x: Tensor, *weights: Tensor) -> str:
    num_rows = x.shape[:-1].numel()
    if not 1 <= num_rows <= MAX_ROWS or len(weights) > MAX_MAPS:
        return f"takes 1 to {MAX_ROWS} rows and {MAX_MAPS} maps, got {num_rows} and {len(weights)}"
    if x.dtype not in KERNEL_DTYPES or any(weight.dtype != x.dtype for weight in weights):
        return f"takes one dtype of {KERNEL_DTYPES}, got {x.dtype} and {weights[0].dtype}"
    if torch.is_autocast_enabled(x.device.type):
        return "casts nothing, as autocast would"
    return ""


@lru_cache(MAX_PLANS)
def _plan(keys: Keys) -> Callable[..., tuple[Tensor, ...]]:
    from gcattn.ops.projections.triton_few_rows import plan_projections

    return make_plan(plan_projections, keys, (), num_strided=0)
