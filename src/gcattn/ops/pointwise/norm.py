"""RMSNorm that computes in float32 and returns the dtype that came in.

Shapes: E hidden size.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan
from gcattn.ops.native import run_kernel, runs_native

# what one program holds
MAX_SIZE = 16384


def rms_norm(x: Tensor, weight: Tensor, eps: float | None, *, impl: Impl = "auto") -> Tensor:
    """Divide each [E] by its root mean square and scale, [..., E] → [..., E].

    Args:
        x: Values.
        weight: Scales, [E], in the dtype of `x` or a wider one.
        eps: Added to the mean square; None: the smallest step of the dtype that it is computed in.
        impl: "triton" is one launch without a gradient; "auto" takes it where it can.
    """
    inputs = x, weight
    if runs_fused(impl, inputs, _unfit):
        return _plan(keys_of(inputs), _epsilon(x) if eps is None else eps)(*inputs)
    if impl == "auto" and runs_native(x.shape[:-1].numel(), x, weight):
        return _native_norm(x, None, weight, eps)[1]
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.is_cpu and not torch.is_grad_enabled():
        return _norm_in_few_passes(x.to(wide), weight, eps).to(x.dtype)
    normed = F.rms_norm(x.to(wide), weight.shape, weight.to(wide), eps)
    return normed.to(x.dtype)


def _norm_in_few_passes(x: Tensor, weight: Tensor, eps: float | None) -> Tensor:
    """Do what `F.rms_norm` does in a sixth of the time: a CPU has no kernel for that."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    added = x.new_full((), _epsilon(x) if eps is None else eps)
    mean_square = torch.addcmul(added, length, length, value=1 / x.shape[-1])
    return x * mean_square.rsqrt() * weight


def add_rms_norm(
    x: Tensor, added: Tensor, weight: Tensor, eps: float | None, *, impl: Impl = "auto"
) -> tuple[Tensor, Tensor]:
    """Return x + added, [..., E], and the norm of that.

    Args:
        x: Values.
        added: More values, of the same shape and dtype.
        weight: See `rms_norm`.
        eps: See `rms_norm`.
        impl: See `rms_norm`.
    """
    inputs = x, weight, added
    if runs_fused(impl, inputs, _unfit):
        return _sum_plan(keys_of(inputs), _epsilon(x) if eps is None else eps)(*inputs)
    if impl == "auto" and runs_native(x.shape[:-1].numel(), x, added, weight):
        return _native_norm(x, added, weight, eps)
    total = x + added
    return total, rms_norm(total, weight, eps, impl=impl)


def _native_norm(
    x: Tensor, added: Tensor | None, weight: Tensor, eps: float | None
) -> tuple[Tensor, Tensor]:
    total, out = x if added is None else torch.empty_like(x), torch.empty_like(x)
    sizes = x.shape[:-1].numel(), x.shape[-1], _epsilon(x) if eps is None else eps
    sums = None if added is None else total
    written = [out] if sums is None else [sums, out]
    run_kernel("rms_norm", x.dtype, (x, added, weight, sums, out, *sizes), written)
    return total, out


def _epsilon(x: Tensor) -> float:
    return torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps


def _unfit(x: Tensor, weight: Tensor, added: Tensor | None = None) -> str:
    if x.dtype not in KERNEL_DTYPES or weight.dtype not in KERNEL_DTYPES:
        return f"takes {KERNEL_DTYPES}, got {x.dtype} and {weight.dtype}"
    if x.shape[-1] > MAX_SIZE or weight.shape != x.shape[-1:]:
        return f"takes E <= {MAX_SIZE} and a weight [E], got {list(x.shape)} and {weight.shape}"
    if added is not None and (added.shape != x.shape or added.dtype != x.dtype):
        return f"adds what is like x, {list(x.shape)} {x.dtype}, got {list(added.shape)}"
    return ""


@lru_cache(MAX_PLANS)
def _plan(keys: Keys, eps: float) -> Callable[..., Tensor]:
    from gcattn.ops.pointwise.triton_norm import plan_norm

    return make_plan(plan_norm, keys, (eps,), num_strided=0)


@lru_cache(MAX_PLANS)
def _sum_plan(keys: Keys, eps: float) -> Callable[..., tuple[Tensor, Tensor]]:
    from gcattn.ops.pointwise.triton_norm import plan_sum_and_norm

    return make_plan(plan_sum_and_norm, keys, (eps,), num_strided=0)
