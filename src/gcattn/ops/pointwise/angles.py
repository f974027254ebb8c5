"""Angles of the rotary position embedding.

Shapes: B batch, L columns, D head dim.
"""

from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan
from gcattn.ops.native import run_kernel, runs_native
from gcattn.ops.pointwise.rotary import Rotation


def rotary_angles(
    positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype, *, impl: Impl = "auto"
) -> Rotation:
    """Return cosines and sines for each position [B, L], both [B, L, 1, D].

    Angles are computed in float64: at position 16M a float32 angle is off by whole radians.

    Args:
        positions: Of the columns in their document, int64.
        head_dim: D.
        theta: Base of the wavelengths.
        dtype: Of the result.
        impl: "triton" is one launch; "auto" takes it where it can.
    """
    inputs = (positions,)
    if runs_fused(impl, inputs, lambda _: _unfit(dtype)):
        frequencies = _frequencies(head_dim, theta, positions.device)
        return _plan(keys_of((positions, frequencies)), dtype)(positions, frequencies)
    if impl == "auto" and _fits_kernel(positions, dtype):
        return _native_angles(positions, head_dim, theta, dtype)
    if torch.compiler.is_compiling():
        return _traced_angles(positions, head_dim, theta, dtype)
    return _angles(positions, head_dim, theta, dtype)


def _angles(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    angles = positions.double().unsqueeze(-1) * _powers(head_dim, theta, positions.device)
    angles = torch.cat([angles, angles], dim=-1).unsqueeze(-2)  # [B, L, 1, D]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _fits_kernel(positions: Tensor, dtype: torch.dtype) -> bool:
    is_read = positions.is_cpu and positions.is_contiguous()
    return is_read and runs_native(positions.numel(), torch.empty(0, dtype=dtype))


def _native_angles(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    shape = (*positions.shape, 1, head_dim)
    rotation = torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    frequencies = _frequencies(head_dim, theta, positions.device)
    arguments = positions, frequencies, *rotation, positions.numel(), head_dim
    run_kernel("rotary_angles", dtype, arguments, rotation)
    return rotation


def _powers(head_dim: int, theta: float, device: torch.device) -> Tensor:
    exponent = torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim
    powers: Tensor = theta**-exponent  # [D / 2]
    return powers


def _unfit(dtype: torch.dtype) -> str:
    return "" if dtype in KERNEL_DTYPES else f"returns one of {KERNEL_DTYPES}, got {dtype}"


# never let go: a captured graph may read them
@cache
def _frequencies(head_dim: int, theta: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept from call to call, whatever their mode
        return _powers(head_dim, theta, device)


# one node to torch.compile: inlined, every layer would compute float64 cosines again
@torch.library.custom_op("gcattn::rotary_angles", mutates_args=())
def _traced_angles(
    positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    return _angles(positions, head_dim, theta, dtype)


@_traced_angles.register_fake
def _(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    shape = (*positions.shape, 1, head_dim)
    return positions.new_empty(shape, dtype=dtype), positions.new_empty(shape, dtype=dtype)


@lru_cache(MAX_PLANS)
def _plan(keys: Keys, dtype: torch.dtype) -> Callable[..., Rotation]:
    from gcattn.ops.pointwise.triton_angles import plan_angles

    return make_plan(plan_angles, keys, (dtype,), num_strided=0)
