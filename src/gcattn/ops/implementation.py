"""Which implementation of an operator runs: the same choice for every operator."""

import os
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from gcattn.ops.launch import Layout, is_traced

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


def runs_fused(impl: Impl, inputs: Sequence[Tensor], unfit: Callable[..., str]) -> bool:
    """Say whether a kernel without a gradient runs, or else the lines that it stands for.

    Traced calls keep their lines, which `torch.compile` fuses itself.

    Args:
        impl: What the caller asked for; see `runs_triton`.
        inputs: All inputs; the first one's device decides.
        unfit: Says of the inputs what the kernel cannot do, as in `runs_triton`.
    """
    if impl == "reference" or (impl == "auto" and not inputs[0].is_cuda):
        return False
    if is_traced(inputs):
        reason = "is not traced"
    elif torch.is_grad_enabled() and any([x.requires_grad for x in inputs]):
        reason = "has no gradient"
    else:
        reason = unfit(*inputs)
    return runs_triton(impl, inputs[0], reason)


def multiplies_slowly(x: Tensor) -> bool:
    """Say whether matrix products of x are faster in float32, conversions included.

    Most CPUs have no products of 16 bits, and PyTorch's own lines for them are ten times as slow.
    Autocast would convert back.
    """
    return x.is_cpu and x.dtype in SLOW_DTYPES and not torch.is_autocast_enabled("cpu")


def computes_wide(q: Tensor) -> bool:
    """Say whether attention of queries [B, …, H, D] is computed in float32 though they are halves.

    For one column the keys are read once, and a CPU widens them sooner than it multiplies halves.
    """
    is_half = q.dtype in (torch.bfloat16, torch.float16)
    return is_half and q.is_cpu and (q.shape[1:-2].numel() == 1 or multiplies_slowly(q))


def _slow_dtypes() -> frozenset[torch.dtype]:
    has_library = torch.backends.mkldnn.is_available()
    has_products = {
        torch.bfloat16: has_library and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        torch.float16: has_library and torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    }
    return frozenset(dtype for dtype, is_fast in has_products.items() if not is_fast)


# asked once: torch.compile could not
SLOW_DTYPES = _slow_dtypes()
