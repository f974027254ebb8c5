"""The product of a gated feed-forward block: silu(gate) · up.

Shapes: any.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan
from gcattn.ops.native import run_kernel, runs_native


def silu_times(gate: Tensor, up: Tensor, *, impl: Impl = "auto") -> Tensor:
    """Return silu(gate) · up.

    Args:
        gate: Goes through the nonlinearity.
        up: Of the same shape.
        impl: "triton" is one launch without a gradient; "auto" takes it where it can.
    """
    inputs = gate, up
    if runs_fused(impl, inputs, _unfit):
        return _plan(keys_of(inputs))(*inputs)
    if impl == "auto" and gate.shape == up.shape and runs_native(gate.shape[:-1].numel(), *inputs):
        out = torch.empty_like(gate)
        run_kernel("silu_times", gate.dtype, (gate, up, out, gate.numel()), [out])
        return out
    return F.silu(gate) * up


def _unfit(gate: Tensor, up: Tensor) -> str:
    if gate.dtype not in KERNEL_DTYPES or gate.dtype != up.dtype or gate.shape != up.shape:
        return f"takes one shape and one dtype of {KERNEL_DTYPES}, got {gate.dtype} and {up.dtype}"
    return ""


@lru_cache(MAX_PLANS)
def _plan(keys: Keys) -> Callable[..., Tensor]:
    from gcattn.ops.pointwise.triton_gate import plan_gate

    return make_plan(plan_gate, keys, (), num_strided=0)
