"""The position of each row of a stream.

Shapes: B batch.
"""

import torch
from torch import Tensor

from gcattn.chunking import ChunkState
from gcattn.memory.carried import CarriedState


class Position(CarriedState):
    """The chunking's state between two calls, on the CPU where calls are planned."""

    @property
    def state(self) -> ChunkState | None:
        """Position of the rows; None at the beginning of a stream."""
        return ChunkState(**self._held) if self._held else None

    def move(self, state: ChunkState | None) -> None:
        """Move to the end of a call."""
        if self.remembers:
            assert state is not None  # only a call that keeps nothing leaves it out
            self._held = dict(vars(state))

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restore what `tensors` returned; it stays on the CPU."""
        super().restore(tensors, torch.device("cpu"))

    def num_bytes(self) -> dict[str, int]:
        """Return 0: these few integers do not count."""
        return {"device": 0, "host": 0}
