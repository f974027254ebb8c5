"""Kernel of linear maps of the same few rows.

Letters: M rows, n input size, N output size of a map.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout

# outputs of a program: few, so that a small map occupies the whole GPU
BLOCK_OUT = 4
# inputs that a program reads at once
MAX_BLOCK_IN = 2048


@triton.jit
def _project_tile(
    x_ptr,  # [M, n]
    weight_ptr,  # [N, n]
    out_ptr,  # [M, N]
    tile,
    M: tl.constexpr,
    SIZE: tl.constexpr,
    N: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    """Compute BLOCK_OUT outputs of all rows."""
    BLOCK_M: tl.constexpr = triton.next_power_of_2(M)
    row = tl.arange(0, BLOCK_M)
    out = tile * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    total = tl.zeros([BLOCK_M, BLOCK_OUT], tl.float32)
    for start in tl.static_range(0, SIZE, BLOCK_IN):
        i = start + tl.arange(0, BLOCK_IN)
        used = i < SIZE
        at = out.to(tl.int64)[:, None] * SIZE + i[None, :]
        weight = tl.load(weight_ptr + at, mask=(out < N)[:, None] & used[None, :], other=0.0)
        weight = weight.to(tl.float32)
        for m in tl.static_range(M):
            x = tl.load(x_ptr + m * SIZE + i, mask=used, other=0.0).to(tl.float32)
            part = tl.sum(weight * x[None, :], 1)
            total += tl.where((row == m)[:, None], part[None, :], 0.0)
    mask = (row < M)[:, None] & (out < N)[None, :]
    tl.store(out_ptr + row[:, None] * N + out[None, :], total.to(out_ptr.dtype.element_ty), mask)


@triton.jit
def _project_kernel(
    x_ptr,
    weight_0_ptr,
    weight_1_ptr,  # or None
    weight_2_ptr,  # or None
    out_0_ptr,
    out_1_ptr,
    out_2_ptr,
    M: tl.constexpr,
    SIZE: tl.constexpr,
    N_0: tl.constexpr,
    N_1: tl.constexpr,
    N_2: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    """One program owns a few outputs of one map; the maps' programs follow each other."""
    tile = tl.program_id(0)
    tiles_0, tiles_1 = tl.cdiv(N_0, BLOCK_OUT), tl.cdiv(N_1, BLOCK_OUT)
    if tile < tiles_0:
        _project_tile(x_ptr, weight_0_ptr, out_0_ptr, tile, M, SIZE, N_0, BLOCK_OUT, BLOCK_IN)
    elif tile < tiles_0 + tiles_1:
        if weight_1_ptr is not None:
            tile -= tiles_0
            _project_tile(x_ptr, weight_1_ptr, out_1_ptr, tile, M, SIZE, N_1, BLOCK_OUT, BLOCK_IN)
    else:
        if weight_2_ptr is not None:
            tile -= tiles_0 + tiles_1
            _project_tile(x_ptr, weight_2_ptr, out_2_ptr, tile, M, SIZE, N_2, BLOCK_OUT, BLOCK_IN)


def plan_projections(x: Layout, *weights: Layout) -> Callable[..., tuple[Tensor, ...]]:
    """Prepare a function of contiguous x and weights that returns all outputs."""
    size = x.shape[-1]
    sizes = [weight.shape[0] for weight in weights]
    missing = [None] * (3 - len(weights))
    launch = Launch(
        _project_kernel,
        (sum(triton.cdiv(N, BLOCK_OUT) for N in sizes),),
        x.shape[:-1].numel(),
        size,
        *sizes,
        *(0 for _ in missing),
        BLOCK_OUT,
        min(MAX_BLOCK_IN, triton.next_power_of_2(size)),
    )
    shapes = [(*x.shape[:-1], N) for N in sizes]

    def run(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        outputs = tuple([torch.empty(s, dtype=x.dtype, device=x.device) for s in shapes])
        launch(x, *weights, *missing, *outputs, *missing)
        return outputs

    return run
