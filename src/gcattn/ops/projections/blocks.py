"""A linear map of few rows on several cores, its weight cut into blocks of outputs.

MKL gives the product of one row to one core, and takes a slow kernel for it: on two AMD cores a
weight is read at 6 GB/s. As a batch of blocks, with the weight where it is, it is read at 40.

Shapes: n input size, N output size of the map.
"""

from functools import lru_cache

import torch
from torch import Tensor

MAX_ROWS = 4
# cores that are busy with something else keep each other waiting for milliseconds at every product
# they share: only a large weight is worth that, such as a head's
MIN_WEIGHT = 2**20
# blocks of fewer outputs take longer to hand out than to compute
MAX_BLOCKS, MIN_OUTPUTS = 64, 16


def project_in_blocks(x: Tensor, weight: Tensor) -> Tensor:
    """Apply a linear map [N, n] to x, [..., n] → [..., N]; see `fits_blocks`."""
    num_blocks = _num_blocks(weight.shape[0])
    rows = x.reshape(-1, x.shape[-1])
    blocks = weight.unflatten(0, (num_blocks, -1)).transpose(1, 2)  # [blocks, n, N / blocks]
    out = rows.expand(num_blocks, *rows.shape) @ blocks  # [blocks, rows, N / blocks]
    return out.transpose(0, 1).reshape(*x.shape[:-1], -1)


def fits_blocks(x: Tensor, weight: Tensor) -> bool:
    """Say whether blocks are faster: for few rows, without a gradient, where MKL multiplies."""
    return (
        x.is_cpu
        and 1 <= x.shape[:-1].numel() <= MAX_ROWS
        and x.dtype in (torch.float32, torch.float64)
        and weight.dtype == x.dtype
        and weight.numel() >= MIN_WEIGHT
        and weight.is_contiguous()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch.get_num_threads() > 1
        and _num_blocks(weight.shape[0]) > 1
    )


@lru_cache
def _num_blocks(size: int) -> int:
    """Return the largest number of equal blocks within the bounds; 1 if there is none."""
    most = max(1, min(MAX_BLOCKS, size // MIN_OUTPUTS))
    return max(n for n in range(1, most + 1) if size % n == 0)
