"""Linear maps of 16-bit values in float32, on CPUs without products of 16 bits.

Widening a weight takes a hundredth of what PyTorch's products of bfloat16 take on such a CPU.

Shapes: n input size, N output size of a map.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from gcattn.ops.implementation import multiplies_slowly

# fewer rows are read as fast as weights arrive, which are half as wide
MIN_ROWS = 5


def fits_float32(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Say whether maps of this input are faster in float32."""
    return (
        multiplies_slowly(x)
        and x.shape[:-1].numel() >= MIN_ROWS
        and all(weight.dtype == x.dtype for weight in weights)
    )


def project_in_float32(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Apply linear maps [N, n] to the same x, [..., n] → [..., N] each; see `fits_float32`."""
    wide = x.float()
    return tuple(F.linear(wide, weight.float()).to(x.dtype) for weight in weights)
