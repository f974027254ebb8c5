"""Linear maps of a few rows on a CPU: as fast as their weights arrive.

PyTorch's libraries read a weight of float32 at 6 GB/s for one row, and one of bfloat16 not faster.

Shapes: M rows, n input size, N output size of a map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gcattn.ops.native import MAX_INPUT, MAX_MAPS, run_maps, runs_native

# fewer weights are read sooner by one core than handed out to several
MIN_SHARED_WEIGHTS = 2**16


def fits_kernel(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Say whether the kernel takes this input and these weights."""
    fits = 0 < x.numel() <= MAX_INPUT and x.shape[-1] % 2 == 0 and len(weights) <= MAX_MAPS
    return fits and runs_native(x.shape[:-1].numel(), x, *weights)


def project_natively(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Apply linear maps [N, n] to the same x, [..., n] → [..., N] each; see `fits_kernel`."""
    outputs = tuple([x.new_empty(*x.shape[:-1], len(weight)) for weight in weights])
    is_shared = sum([weight.numel() for weight in weights]) >= MIN_SHARED_WEIGHTS
    threads = torch.get_num_threads() if is_shared else 1
    run_maps(x, weights, outputs, threads)
    return outputs
