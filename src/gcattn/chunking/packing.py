"""Moving the many small tensors of a plan to a device at once.

A copy costs the host as much as a kernel does, however small it is.
"""

from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from torch import Tensor

# bytes that every tensor's address is a multiple of: kernels are compiled for such pointers
ALIGNMENT = 16


class Movable(Protocol):
    """A structure of tensors."""

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same structure of changed tensors."""


def moved_together(device: torch.device, *parts: Movable) -> list[Any]:
    """Return the same structures on `device`, after one copy for each dtype.

    The copies do not block: that would wait for all that the device still computes.
    """
    held: list[Tensor] = []

    def hold(x: Tensor) -> Tensor:
        held.append(x)
        return x

    for part in parts:
        part._map(hold)
    arrived: dict[int, Tensor] = {}
    for dtype in {x.dtype for x in held}:
        arrived |= _moved([x for x in held if x.dtype == dtype], device)
    return [part._map(lambda x: arrived[id(x)]) for part in parts]


def _moved(tensors: list[Tensor], device: torch.device) -> dict[int, Tensor]:
    """Move tensors of one dtype; returns them by the identity of what they were."""
    unit = ALIGNMENT // tensors[0].element_size()
    rooms = [-(-x.numel() // unit) * unit for x in tensors]
    packed = torch.zeros(sum(rooms), dtype=tensors[0].dtype)
    for x, room in zip(tensors, packed.split(rooms), strict=True):
        room[: x.numel()] = x.flatten()
    there = packed.to(device, non_blocking=True).split(rooms)
    return {id(x): room[: x.numel()].view(x.shape) for x, room in zip(tensors, there, strict=True)}
