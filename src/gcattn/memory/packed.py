"""Named tensors that lie together in one tensor for each dtype, so that all are copied at once.

A copy costs the host as much as a kernel does, however small it is.
"""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor


class PackedTensors:
    """Tensors by name, as views of one tensor for each dtype.

    Attributes:
        tensors: The views.
    """

    def __init__(self, whole: dict[torch.dtype, Tensor], shapes: Mapping[str, torch.Size]) -> None:
        self._whole, self._shapes = whole, dict(shapes)
        self.tensors = dict[str, Tensor]()
        self._names: dict[torch.dtype, list[str]] = {}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Copy tensors that lie anywhere."""
        packed = cls({}, {})
        for name, x in tensors.items():
            packed._names.setdefault(x.dtype, []).append(name)
            packed._shapes[name] = x.shape
        packed._whole = {
            dtype: torch.cat([tensors[name].reshape(-1) for name in names])
            for dtype, names in packed._names.items()
        }
        packed._view()
        return packed

    def clone(self) -> Self:
        """Return a copy."""
        copy = type(self)({dtype: x.clone() for dtype, x in self._whole.items()}, self._shapes)
        copy._names = self._names
        copy._view()
        return copy

    def copy_(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite all values by those of tensors of the same names, shapes and dtypes."""
        for dtype, names in self._names.items():
            torch.cat([tensors[name].reshape(-1) for name in names], out=self._whole[dtype])

    def _view(self) -> None:
        for dtype, names in self._names.items():
            parts = self._whole[dtype].split([self._shapes[name].numel() for name in names])
            for name, part in zip(names, parts, strict=True):
                self.tensors[name] = part.view(self._shapes[name])
