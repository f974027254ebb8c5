"""Angles of the rotary position embedding.

Shapes: B batch, L columns, D head dim.
"""

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]


# one node to torch.compile: inlined, every layer would compute float64 cosines again
@torch.library.custom_op("gcattn::rotary_angles", mutates_args=())
def rotary_angles(
    positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines for each position, both [B, L, 1, D].

    Angles are computed in float64: at position 16M a float32 angle is off by whole radians.
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float64) / head_dim
    angles = positions.double().unsqueeze(-1) * theta**-exponent  # [B, L, D / 2]
    angles = torch.cat([angles, angles], dim=-1).unsqueeze(-2)  # [B, L, 1, D]
    return angles.cos().to(dtype), angles.sin().to(dtype)


@rotary_angles.register_fake
def _(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    shape = (*positions.shape, 1, head_dim)
    return positions.new_empty(shape, dtype=dtype), positions.new_empty(shape, dtype=dtype)
