"""Kernel of RMSNorm.

Letters: E hidden size.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout


@triton.jit
def _norm_kernel(
    x_ptr,  # [rows, E]
    weight_ptr,  # [E]
    out_ptr,  # [rows, E]
    eps,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program owns one row."""
    e = tl.arange(0, BLOCK)
    used = e < E
    at = tl.program_id(0).to(tl.int64) * E + e
    x = tl.load(x_ptr + at, mask=used, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + e, mask=used, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(x * x, 0) / E + eps)
    tl.store(out_ptr + at, (weight * (factor * x)).to(out_ptr.dtype.element_ty), mask=used)


def plan_norm(x: Layout, weight: Layout, eps: float) -> Callable[..., Tensor]:
    """Prepare a function of contiguous rows and their weight."""
    E = x.shape[-1]
    num_rows = x.shape[:-1].numel()
    block = triton.next_power_of_2(E)
    # the same for every number of rows: a row's sum does not depend on its neighbours
    num_warps = min(max(block // 256, 1), 16)
    launch = Launch(_norm_kernel, (num_rows,), eps, E, block, num_warps=num_warps)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        out = torch.empty_like(x)
        if num_rows:
            launch(x, weight, out)
        return out

    return run
