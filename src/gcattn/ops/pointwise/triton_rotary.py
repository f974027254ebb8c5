"""Kernel of the rotary position embedding: queries and keys in one launch.

Letters: B batch, L columns, H query heads, G key/value heads, D head dim.
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
def _rotate_heads(x_ptr, out_ptr, cos_ptr, sin_ptr, NUM: tl.constexpr, D: tl.constexpr):
    """Rotate the NUM heads of one column; every product is rounded, as PyTorch's lines do."""
    HALF: tl.constexpr = D // 2
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    head = tl.arange(0, triton.next_power_of_2(NUM))
    d = tl.arange(0, triton.next_power_of_2(HALF))
    inside = (d < HALF)[None, :]
    at = head[:, None] * D + d[None, :]
    used = (head < NUM)[:, None] & inside
    first = tl.load(x_ptr + at, mask=used, other=0.0).to(tl.float32)
    second = tl.load(x_ptr + at + HALF, mask=used, other=0.0).to(tl.float32)
    for half in tl.static_range(2):
        angle = d[None, :] + half * HALF
        cos = tl.load(cos_ptr + angle, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + angle, mask=inside, other=0.0).to(tl.float32)
        if half == 0:
            along, across = first * cos, -second * sin
        else:
            along, across = second * cos, first * sin
        out = along.to(dtype).to(tl.float32) + across.to(dtype).to(tl.float32)
        tl.store(out_ptr + at + half * HALF, out.to(dtype), mask=used)


@triton.jit
def _rotate_kernel(
    q_ptr,  # [B, L, H, D]
    k_ptr,  # [B, L, G, D]
    cos_ptr,  # [B or 1, L, 1, D]
    sin_ptr,
    q_out_ptr,
    k_out_ptr,
    num_angles,  # columns that have angles of their own
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
):
    """One program owns one column."""
    column = tl.program_id(0).to(tl.int64)
    angle = column % num_angles * D
    cos_ptr, sin_ptr = cos_ptr + angle, sin_ptr + angle
    q_at, k_at = column * H * D, column * G * D
    _rotate_heads(q_ptr + q_at, q_out_ptr + q_at, cos_ptr, sin_ptr, H, D)
    _rotate_heads(k_ptr + k_at, k_out_ptr + k_at, cos_ptr, sin_ptr, G, D)


def plan_rotation(
    q: Layout, k: Layout, cos: Layout, sin: Layout
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Prepare a function of contiguous q, k, cosines and sines that returns both rotated."""
    B, L, H, D = q.shape
    G, num_angles = k.shape[2], cos.shape[0] * cos.shape[1]
    launch = Launch(
        _rotate_kernel,
        (B * L,),
        num_angles,
        H,
        G,
        D,
        num_warps=warps_for(triton.next_power_of_2(H) * triton.next_power_of_2(D // 2)),
        # products that are rounded by themselves must not be fused with the sum
        enable_fp_fusion=False,
    )
    is_empty = 0 in q.shape

    def run(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs = torch.empty_like(inputs[0]), torch.empty_like(inputs[1])
        if not is_empty:
            launch(*inputs, *outputs)
        return outputs

    return run
