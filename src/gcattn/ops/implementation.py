"""Which implementation of an operator runs: the same choice for every operator."""

import os
from typing import Literal, get_args

import torch
from torch import Tensor

from gcattn.ops.launch import Layout

Impl = Literal["auto", "reference", "triton"]

# what the kernels take
KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def runs_triton(impl: Impl, x: Tensor | Layout, unfit: str) -> bool:
    """Say whether the Triton kernels run, or else the reference.

    Args:
        impl: What the caller asked for.
        x: An input; its device decides.
        unfit: What the inputs have that the kernels cannot do, empty if nothing.

    Raises:
        ValueError: `impl` is unknown, or "triton" was asked for what it cannot do.
        RuntimeError: "triton" was asked for without CUDA and without Triton's interpreter.
    """
    if impl == "auto":
        return x.device.type == "cuda" and not unfit
    if impl not in get_args(Impl):
        raise ValueError(f'impl must be "auto", "reference" or "triton", got {impl!r}.')
    if impl == "reference":
        return False
    if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            'impl="triton" needs CUDA tensors (or TRITON_INTERPRET=1), '
            f'got {x.device}; pass impl="reference" to run there.'
        )
    if unfit:
        raise ValueError(f'impl="triton" {unfit}; pass impl="reference".')
    return True
