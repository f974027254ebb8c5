"""Calling the kernels of `kernels.c` on tensors, and noting the calls where they are recorded.

Shapes: B rows.
"""

import ctypes
import threading
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from gcattn.ops.native.library import load_kernels

# limits of `kernels.c`
MAX_HEAD_DIM, MAX_INPUT = 256, 65536
# more rows are worth PyTorch's own operators, which use all cores
MAX_ROWS = 4

_PLAIN = (Tensor, nn.Parameter)
Number: TypeAlias = int | float
_recorders = threading.local()


class Recorder(Protocol):
    """Notes calls of kernels."""

    def note(self, call: Callable[[], Any], read: list[Tensor], written: list[Tensor]) -> None:
        """Note a call that reads some tensors and writes others; both have to stay in place."""


def set_recorder(recorder: Recorder | None) -> None:
    """Set who notes this thread's calls; None: nobody."""
    _recorders.current = recorder


def has_kernels(num_rows: int, dtype: torch.dtype) -> bool:
    """Say whether kernels compute so many rows of a CPU."""
    return 1 <= num_rows <= MAX_ROWS and load_kernels(dtype) is not None


def runs_native(num_rows: int, *inputs: Tensor | None) -> bool:
    """Say whether a kernel runs: few rows of one dtype on a CPU, no gradient, nobody tracing.

    Args:
        num_rows: Columns of a decoded token, or outputs that are computed one by one.
        inputs: Of a floating dtype.
    """
    first = inputs[0]
    if first is None or not first.is_cpu or num_rows > MAX_ROWS:
        return False
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    for x in inputs:
        if x is not None and (
            type(x) not in _PLAIN or x.dtype != first.dtype or not x.is_contiguous()
        ):
            return False
    watching = 0 if getattr(_recorders, "current", None) is None else 1
    return (
        not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == watching
        and not torch._C._are_functorch_transforms_active()
        and has_kernels(num_rows, first.dtype)
    )


def run_kernel(
    name: str,
    dtype: torch.dtype,
    arguments: Iterable[Tensor | Number | None],
    written: Iterable[Tensor],
) -> None:
    """Call a kernel.

    Args:
        name: In `kernels.c`.
        dtype: Which of its libraries.
        arguments: As in its signature; None is a null pointer.
        written: Those of them that it writes.
    """
    given = tuple(arguments)
    kernel = _kernel(name, dtype, tuple([type(x) for x in given]))
    call = partial(kernel, *[x.data_ptr() if isinstance(x, Tensor) else x for x in given])
    call()
    recorder = getattr(_recorders, "current", None)
    if recorder is not None:
        outputs = list(written)
        read = [x for x in given if isinstance(x, Tensor) and all(x is not y for y in outputs)]
        recorder.note(call, read, outputs)


@cache
def _kernel(name: str, dtype: torch.dtype, types: tuple[type, ...]) -> Any:
    library = load_kernels(dtype)
    assert library is not None  # `runs_native` has asked
    # a function object of its own, as argtypes belong to the object
    kernel = library[name]
    kernel.restype = None
    kernel.argtypes = [
        ctypes.c_double if kind is float else ctypes.c_int64 if kind is int else ctypes.c_void_p
        for kind in types
    ]
    return kernel
