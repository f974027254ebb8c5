"""The interface of all state that a stream carries from call to call.

A forward call extends every state: it puts the kept columns before its own and keeps the last ones
for the next call. A state that does not remember keeps nothing, so training, prefill and decoding
run the same code.

Shapes: B batch.
"""

from typing import TypeAlias

import torch
from torch import Tensor

Snapshot: TypeAlias = dict[str, object]


class CarriedState:
    """Named tensors with one row for each row of the batch.

    A subclass adds `extend`, which reads `self._held` and, if `self.remembers`, replaces tensors in
    it. Held tensors are replaced, never written to, so a failed call is rolled back by restoring
    the old ones.

    Args:
        remembers: Keep what the next call needs; training has no next call.
    """

    def __init__(self, *, remembers: bool = True) -> None:
        self.remembers = remembers
        self._held: dict[str, Tensor] = {}

    def select_rows(self, rows: Tensor) -> None:
        """Keep the given rows [B'] in their order; rows may repeat."""
        self._held = {name: x[rows.to(x.device)] for name, x in self._held.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        return dict(self._held)

    def replace(self, tensors: dict[str, Tensor]) -> None:
        """Replace the tensors, by name."""
        self._held = dict(tensors)

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restore what `tensors` returned, on `device`."""
        self._held = {name: x.to(device) for name, x in tensors.items()}

    def num_bytes(self) -> dict[str, int]:
        """Return bytes in use by place, {"device": …, "host": …}."""
        held = sum(x.numel() * x.element_size() for x in self._held.values())
        return {"device": held, "host": 0}

    def snapshot(self) -> Snapshot:
        """Return what `roll_back` needs, without copying a tensor."""
        # containers change in place, so they are copied
        return {
            name: value.copy() if isinstance(value, (dict, list)) else value
            for name, value in vars(self).items()
        }

    def roll_back(self, before: Snapshot) -> None:
        """Return to where `snapshot` was taken; a snapshot can be used once."""
        vars(self).update(before)
