"""Kernel of the short convolution over columns.

Letters: B batch, L columns, E hidden size, n taps.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout
from gcattn.ops.tiles import warps_for

BLOCK = 1024


@triton.jit
def _mix_kernel(
    x_ptr,  # [B, n - 1 + L, E]
    weight_ptr,  # [n, E]
    positions_ptr,  # [B or 1, L]
    out_ptr,  # [B, L, E]
    L,
    num_positions,
    E: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program owns a block of channels of one column; it rounds as PyTorch's lines do."""
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    column = tl.program_id(0).to(tl.int64)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    used = e < E
    position = tl.load(positions_ptr + column % num_positions)
    # rows of x are longer than those of the output
    own = column + (column // L + 1) * (TAPS - 1)
    out = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(TAPS):
        x = tl.load(x_ptr + (own - i) * E + e, mask=used, other=0.0).to(tl.float32)
        weight = tl.load(weight_ptr + i * E + e, mask=used, other=0.0).to(dtype).to(tl.float32)
        product = (x * weight).to(dtype).to(tl.float32)
        if i > 0:
            product = tl.where(position >= i, product, 0.0)
        out = (out + product).to(dtype).to(tl.float32)
    tl.store(out_ptr + column * E + e, out.to(dtype), mask=used)


def plan_mixing(x: Layout, weight: Layout, positions: Layout) -> Callable[..., Tensor]:
    """Prepare a function of contiguous columns, weights and positions."""
    (B, _, E), taps, L = x.shape, weight.shape[0], positions.shape[1]
    block = min(BLOCK, triton.next_power_of_2(E))
    # products that are rounded by themselves must not be fused with the sum
    launch = Launch(
        _mix_kernel,
        (B * L, triton.cdiv(E, block)),
        L,
        positions.shape.numel(),
        E,
        taps,
        block,
        num_warps=warps_for(block),
        enable_fp_fusion=False,
    )

    def run(x: Tensor, weight: Tensor, positions: Tensor) -> Tensor:
        out = torch.empty((B, L, E), dtype=x.dtype, device=x.device)
        if B * L:
            launch(x, weight, positions, out)
        return out

    return run
