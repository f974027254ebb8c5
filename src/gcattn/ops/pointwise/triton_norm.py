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
from gcattn.ops.tiles import warps_for


@triton.jit
def _norm_kernel(
    x_ptr,  # [rows, E]
    weight_ptr,  # [E]
    added_ptr,  # [rows, E] or None
    sum_ptr,  # [rows, E], or None where nothing is added
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
    if added_ptr is not None:
        x += tl.load(added_ptr + at, mask=used, other=0.0).to(tl.float32)
        rounded = x.to(x_ptr.dtype.element_ty)
        tl.store(sum_ptr + at, rounded, mask=used)
        x = rounded.to(tl.float32)
    weight = tl.load(weight_ptr + e, mask=used, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(x * x, 0) / E + eps)
    tl.store(out_ptr + at, (weight * (factor * x)).to(out_ptr.dtype.element_ty), mask=used)


def plan_norm(x: Layout, weight: Layout, eps: float) -> Callable[..., Tensor]:
    """Prepare a function of contiguous rows and their weight."""
    launch, is_empty = _launch(x, eps), 0 in x.shape

    def run(x: Tensor, weight: Tensor) -> Tensor:
        out = torch.empty_like(x)
        if not is_empty:
            launch(x, weight, None, None, out)
        return out

    return run


def plan_sum_and_norm(
    x: Layout, weight: Layout, added: Layout, eps: float
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Prepare a function of contiguous rows, their weight and what is added to them."""
    launch, is_empty = _launch(x, eps), 0 in x.shape

    def run(x: Tensor, weight: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        total, out = torch.empty_like(x), torch.empty_like(x)
        if not is_empty:
            launch(x, weight, added, total, out)
        return total, out

    return run


def _launch(x: Layout, eps: float) -> Launch:
    E = x.shape[-1]
    block = triton.next_power_of_2(E)
    # the same for every number of rows: a row's sum does not depend on its neighbours
    num_warps = warps_for(block)
    return Launch(_norm_kernel, (x.shape[:-1].numel(),), eps, E, block, num_warps=num_warps)
