"""Where each row of a stream stands.

Shapes: B batch.
"""

import torch
from torch import Tensor

from gcattn.chunking import ChunkState
from gcattn.memory.carried import CarriedState


class Position(CarriedState):
    """The chunking's state between two calls, on the CPU where calls are planned.

    Attributes:
        num_tokens: Tokens seen per row, padding included and landmarks not.
    """

    def __init__(self, *, remembers: bool = True) -> None:
        super().__init__(remembers=remembers)
        self.num_tokens = 0

    @property
    def state(self) -> ChunkState | None:
        """Where the rows stand; None at the beginning of a stream."""
        return ChunkState(**self._held) if self._held else None

    def move(self, state: ChunkState | None, num_tokens: int) -> None:
        """Go to where a call of `num_tokens` tokens ended."""
        if self.remembers:
            assert state is not None  # only a call that is forgotten leaves it out
            self._held = dict(vars(state))
            self.num_tokens += num_tokens

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Take back what `tensors` returned; it stays on the CPU."""
        super().restore(tensors, torch.device("cpu"))

    def num_bytes(self) -> dict[str, int]:
        """Count nothing: these few integers are no one's memory to plan with."""
        return {"device": 0, "host": 0}
