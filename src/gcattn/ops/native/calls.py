"""Calling the kernels of `kernels.c` on tensors, and noting the calls where they are recorded.

Shapes: B rows.
"""

import ctypes
import struct
import threading
from collections.abc import Callable, Iterable
from functools import cache
from itertools import groupby
from typing import Any, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn

from gcattn.ops.native.library import load_kernels

# limit of `kernels.c`
MAX_HEAD_DIM = 256
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
        arguments: In the order of its struct; None is a null pointer.
        written: Those of them that it writes.
    """
    given = tuple(arguments)
    call = KernelCall(name, dtype, _packed(given))
    call()
    recorder = getattr(_recorders, "current", None)
    if recorder is not None:
        outputs = list(written)
        read = [x for x in given if isinstance(x, Tensor) and all(x is not y for y in outputs)]
        recorder.note(call, read, outputs)


class KernelCall:
    """A call of a kernel on tensors that stay in place.

    Args:
        name: In `kernels.c`.
        dtype: Which of its libraries.
        arguments: Its struct.
    """

    def __init__(self, name: str, dtype: torch.dtype, arguments: bytes) -> None:
        self.kernel, self.dtype, self.arguments = _kernel(name, dtype), dtype, arguments

    def __call__(self) -> None:
        """Call it."""
        self.kernel(self.arguments)


class KernelTable:
    """Calls of kernels one after another, without Python between them."""

    def __init__(self, calls: list[KernelCall]) -> None:
        structs = [ctypes.create_string_buffer(call.arguments) for call in calls]
        places = list[int | None]()
        for call, arguments in zip(calls, structs, strict=True):
            places += [_address(call.kernel), ctypes.addressof(arguments)]
        table = (ctypes.c_void_p * len(places))(*places)
        self._kept = structs, table
        whole = struct.pack("qq", ctypes.addressof(table), len(calls))
        self._run = KernelCall("run_calls", calls[0].dtype, whole)

    def __call__(self) -> None:
        """Call them."""
        self._run()


def join_kernels(calls: Iterable[Callable[[], Any]]) -> list[Callable[[], Any]]:
    """Make one table of all kernels that follow each other."""
    joined = list[Callable[[], Any]]()
    for are_kernels, group in groupby(calls, lambda call: isinstance(call, KernelCall)):
        own = list(group)
        joined += [KernelTable(cast(list[KernelCall], own))] if are_kernels else own
    return joined


def _packed(arguments: tuple[Tensor | Number | None, ...]) -> bytes:
    """Make the struct of a kernel: pointers, int64 and double."""
    values = [x.data_ptr() if isinstance(x, Tensor) else 0 if x is None else x for x in arguments]
    return struct.pack("".join(["d" if type(x) is float else "q" for x in values]), *values)


@cache
def _kernel(name: str, dtype: torch.dtype) -> Any:
    library = load_kernels(dtype)
    assert library is not None  # `runs_native` has asked
    kernel = getattr(library, name)
    kernel.restype, kernel.argtypes = None, [ctypes.c_char_p]
    return kernel


def _address(kernel: Any) -> int | None:
    return ctypes.cast(kernel, ctypes.c_void_p).value
