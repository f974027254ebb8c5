"""Calling kernels quickly: what the layouts of the inputs decide is done when they are first seen.

Checking the inputs, choosing tiles and letting Triton look at every argument of every launch takes
longer than small kernels run. So an operator makes a plan for each set of layouts, in which all of
that is fixed, and a call only looks the plan up and gives it tensors.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# layouts that an operator remembers: the least recently used ones go
MAX_PLANS = 512
_PLAIN = (Tensor, nn.Parameter, type(None))


class Layout(NamedTuple):
    """All that a plan may know of a tensor."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    is_aligned: bool  # to 16 bytes: Triton compiles wider loads then

    def is_contiguous(self) -> bool:
        """Say whether the tensor lies in one piece."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


# Layouts by position, None where there is no tensor: quick to make and to look up
Keys = tuple[tuple[Any, ...] | None, ...]


def keys_of(tensors: Iterable[Tensor | None]) -> Keys:
    """Describe the layouts of a call's inputs."""
    return tuple(
        [
            None if x is None else (x.shape, x.stride(), x.dtype, x.device, x.data_ptr() % 16 == 0)
            for x in tensors
        ]
    )


def layouts_of(keys: Keys) -> list[Any]:
    """Name the parts of each key: a Layout, or None where there is no tensor."""
    return [None if key is None else Layout(*key) for key in keys]


def is_traced(tensors: Iterable[Tensor | None]) -> bool:
    """Say whether a call is recorded rather than run: it must go through a registered operator.

    `torch.compile` records, and so do fake tensors and everything else that stands between a
    caller and PyTorch's operators.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or any([type(x) not in _PLAIN for x in tensors])
    )


def told_apart(tensors: Iterable[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Return a view of each tensor, so that none comes twice.

    `torch.compile` returns one gradient too few, or gives up, where a `torch.autograd.Function`
    gets the same tensor as two arguments: a pool that is keys and values, say.
    """
    return tuple([None if x is None else x.view_as(x) for x in tensors])


def apply_untraced(function: type[torch.autograd.Function], *args: Any) -> Any:
    """Do what `function.apply` does in less time: it looks for functorch, which `is_traced` did."""
    return super(torch.autograd.Function, function).apply(*args)  # type: ignore[misc]


def refuse_second_derivative(name: str) -> None:
    """Raise RuntimeError in a backward pass that is itself to be differentiated."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"The kernels of {name} have no second derivative; pass "
            'impl="reference" where create_graph=True is needed.'
        )


def allocator(like: Layout, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return a function of such a tensor: an empty one like it, in one piece, on `device`.

    `empty_like` takes half the time of `new_empty`, but keeps whatever strides there are.
    """
    if like.is_contiguous() and like.device == device:
        return torch.empty_like
    return lambda x: x.new_empty(like.shape, device=device)


class Launch:
    """A kernel, its grid and all its arguments but the tensors, which come first.

    Valid for tensors of the same dtypes and alignment, on one device: that of the first tensor. The
    others may lie there or in pinned memory of the host.
    """

    def __init__(
        self, kernel: Any, grid: tuple[int, ...], *constants: Any, **options: bool | int | None
    ) -> None:
        self._kernel, self._constants, self._options = kernel, constants, options
        self._grid = (*grid, 1, 1)[:3]
        self._run: Any = None

    def __call__(self, *tensors: Tensor | None) -> None:
        """Launch on the current stream of the device."""
        if self._run is None or self._enter.calls or self._exit.calls:
            self._launch_by_triton(tensors)
            return
        if self._current_device() != self._device:
            with torch.cuda.device(self._device):
                self(*tensors)
            return
        # a number is taken as it is; the driver is asked about each tensor, which only memory of
        # the host needs: it may not be pinned
        pointers = [x if x is None or x.is_cpu else x.data_ptr() for x in tensors]
        stream = self._current_stream(self._device)
        self._run(*self._grid, stream, *self._binary, *pointers, *self._constants)

    def _launch_by_triton(self, tensors: tuple[Tensor | None, ...]) -> None:
        """Launch as Triton does, compiling if need be, and keep what the next call needs."""
        with torch.cuda.device_of(tensors[0]):
            binary = self._kernel[self._grid](*tensors, *self._constants, **self._options)
            if binary is None:  # Triton's interpreter has none
                return
            from triton import knobs
            from triton.runtime import driver

            hooks = knobs.runtime
            self._enter, self._exit = hooks.launch_enter_hook, hooks.launch_exit_hook
            self._current_stream = driver.active.get_current_stream
            self._current_device = driver.active.get_current_device
            self._device = self._current_device()
        # without hooks there is nobody to describe the launch to
        self._binary = binary.function, binary.packed_metadata, None, None, None
        self._run = binary.run


def make_plan(
    build: Callable[..., Callable[..., Any]],
    keys: Keys,
    options: tuple[Any, ...],
    num_strided: int,
) -> Callable[..., Any]:
    """Build a plan for inputs of the given keys; those that no kernel can read are copied first.

    Args:
        build: Makes the plan from layouts and options.
        keys: Of the inputs.
        options: What else the plan depends on.
        num_strided: So many inputs may have any strides but the last dimension's, which is 1; the
            others must lie in one piece.
    """
    layouts = layouts_of(keys)
    is_read = [
        x is None or x.is_contiguous() or (i < num_strided and x.strides[-1] == 1)
        for i, x in enumerate(layouts)
    ]
    if all(is_read):
        return build(*layouts, *options)

    made: list[Callable[..., Any]] = []

    def run(*inputs: Tensor | None) -> Any:
        copied = tuple(
            x if x is None or read else x.contiguous()
            for x, read in zip(inputs, is_read, strict=True)
        )
        if not made:  # the layouts of copies are always the same
            made.append(build(*layouts_of(keys_of(copied)), *options))
        return made[0](*copied)

    return run
