"""Which implementation of an operator runs: the same choice for every operator."""

import os
from typing import Literal

from torch import Tensor

Impl = Literal["auto", "reference", "triton"]


def check_triton(x: Tensor) -> None:
    """Raise RuntimeError where Triton kernels cannot run: without CUDA or Triton's interpreter."""
    interprets = os.environ.get("TRITON_INTERPRET") == "1"
    if not x.is_cuda and not interprets:
        raise RuntimeError(
            'impl="triton" needs CUDA tensors (or TRITON_INTERPRET=1), '
            f'got {x.device}; pass impl="reference" to run there.'
        )
