"""A linear map of a few rows on a CPU: as fast as its weight arrives.

PyTorch's libraries read a weight of float32 at 6 GB/s for one row, and one of bfloat16 not faster.

Shapes: M rows, n input size, N output size.
"""

import torch
from torch import Tensor

from gcattn.ops.native import MAX_INPUT, run_kernel, runs_native

# smaller weights are read sooner by one core than handed out to several
MIN_SHARED_WEIGHT = 2**17


def fits_kernel(x: Tensor, weight: Tensor) -> bool:
    """Say whether the kernel takes this input and weight."""
    fits = 0 < x.numel() <= MAX_INPUT and x.shape[-1] % 2 == 0
    return fits and runs_native(x.shape[:-1].numel(), x, weight)


def project_natively(x: Tensor, weight: Tensor) -> Tensor:
    """Apply a linear map [N, n] to x, [..., n] → [..., N]; see `fits_kernel`."""
    N, n = weight.shape
    out = x.new_empty(*x.shape[:-1], N)
    threads = torch.get_num_threads() if weight.numel() >= MIN_SHARED_WEIGHT else 1
    sizes = x.shape[:-1].numel(), n, N, threads
    run_kernel("project", x.dtype, (x, weight, out, None, *sizes, 1.0), [out])
    return out
