"""Kernel of the angles of the rotary position embedding.

Letters: B batch, L columns, D head dim.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout


@triton.jit
def _angles_kernel(
    positions_ptr,  # [B, L]
    frequencies_ptr,  # [D / 2], float64
    cos_ptr,  # [B, L, 1, D]
    sin_ptr,
    HALF: tl.constexpr,
):
    """One program owns one column."""
    column = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, triton.next_power_of_2(HALF))
    used = d < HALF
    position = tl.load(positions_ptr + column).to(tl.float64)
    angle = position * tl.load(frequencies_ptr + d, mask=used, other=0.0)
    # by way of float32, as PyTorch converts
    cos = tl.cos(angle).to(tl.float32).to(cos_ptr.dtype.element_ty)
    sin = tl.sin(angle).to(tl.float32).to(sin_ptr.dtype.element_ty)
    at = column * 2 * HALF + d
    tl.store(cos_ptr + at, cos, mask=used)
    tl.store(cos_ptr + at + HALF, cos, mask=used)
    tl.store(sin_ptr + at, sin, mask=used)
    tl.store(sin_ptr + at + HALF, sin, mask=used)


def plan_angles(
    positions: Layout, frequencies: Layout, dtype: torch.dtype
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Prepare a function of contiguous positions and frequencies."""
    half = frequencies.shape[0]
    num_columns = positions.shape.numel()
    launch = Launch(_angles_kernel, (num_columns,), half, num_warps=1)
    shape = (*positions.shape, 1, 2 * half)

    def run(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = (torch.empty(shape, dtype=dtype, device=positions.device) for _ in range(2))
        if num_columns:
            launch(positions, frequencies, cos, sin)
        return cos, sin

    return run
