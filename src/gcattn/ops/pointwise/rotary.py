"""Rotary position embedding of queries and keys.

Shapes: B batch, L columns, H query heads, G key/value heads, D head dim.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan
from gcattn.ops.native import run_kernel, runs_native

Rotation = tuple[Tensor, Tensor]  # cosines and sines


def rotate(
    q: Tensor, k: Tensor, rotation: Rotation, *, impl: Impl = "auto"
) -> tuple[Tensor, Tensor]:
    """Rotate queries [B, L, H, D] and keys [B, L, G, D] by their positions.

    Args:
        q: Queries.
        k: Keys.
        rotation: Cosines and sines, both [B, L, 1, D] or [1, L, 1, D].
        impl: "triton" is one launch without a gradient; "auto" takes it where it can.
    """
    inputs = q, k, *rotation
    if runs_fused(impl, inputs, _unfit):
        return _plan(keys_of(inputs))(*inputs)
    rows = q.shape[:2].numel()
    is_native = impl == "auto" and inputs[2].shape[:2] == q.shape[:2] and runs_native(rows, *inputs)
    one = _rotate_natively if is_native else _rotate_one
    return one(q, rotation), one(k, rotation)


def _rotate_one(x: Tensor, rotation: Rotation) -> Tensor:
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _rotate_natively(x: Tensor, rotation: Rotation) -> Tensor:
    out = torch.empty_like(x)
    sizes = x.shape[:2].numel(), *x.shape[2:]
    run_kernel("rotate", x.dtype, (x, *rotation, out, *sizes), [out])
    return out


def _unfit(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> str:
    if q.dtype not in KERNEL_DTYPES or not q.dtype == k.dtype == cos.dtype == sin.dtype:
        return f"takes one dtype of {KERNEL_DTYPES}, got {q.dtype}, {k.dtype} and {cos.dtype}"
    return ""


@lru_cache(MAX_PLANS)
def _plan(keys: Keys) -> Callable[..., tuple[Tensor, Tensor]]:
    from gcattn.ops.pointwise.triton_rotary import plan_rotation

    return make_plan(plan_rotation, keys, (), num_strided=0)
