"""Kernel of silu(gate) · up."""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout

BLOCK = 1024


@triton.jit
def _gate_kernel(gate_ptr, up_ptr, out_ptr, num_values, BLOCK: tl.constexpr):
    """One program owns one block of values; silu is rounded before it is multiplied."""
    dtype: tl.constexpr = out_ptr.dtype.element_ty
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    used = at < num_values
    gate = tl.load(gate_ptr + at, mask=used, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=used, other=0.0).to(tl.float32)
    silu = tl.div_rn(gate, 1.0 + tl.exp(-gate)).to(dtype).to(tl.float32)
    tl.store(out_ptr + at, (silu * up).to(dtype), mask=used)


def plan_gate(gate: Layout, up: Layout) -> Callable[..., Tensor]:
    """Prepare a function of two contiguous tensors of one shape."""
    num_values = gate.shape.numel()
    launch = Launch(_gate_kernel, (triton.cdiv(num_values, BLOCK),), num_values, BLOCK)

    def run(gate: Tensor, up: Tensor) -> Tensor:
        out = torch.empty_like(gate)
        if num_values:
            launch(gate, up, out)
        return out

    return run
