"""Keys and values of all columns, and which are landmarks: what Landmark Attention reads.

Shapes: B batch, L new columns, P kept columns, W window.
"""

import torch
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.window import WindowCache

# more columns than any stream has: the window of Landmark Attention never moves
_EVERY_COLUMN = 2**62


class LandmarkWindow(WindowCache):
    """A window over all columns that marks where blocks end; one for each decoder."""

    def __init__(self, *, remembers: bool = True) -> None:
        super().__init__(_EVERY_COLUMN, remembers=remembers)
        self.key_is_landmark: Tensor | None = None  # bool [B, P + L], of the current call

    def begin(self, layout: ChunkLayout) -> None:
        """Register the columns of this call."""
        super().begin(layout)
        whole = layout.is_landmark
        if "landmarks" in self._held:
            whole = torch.cat([self._held["landmarks"], whole], dim=1)
        self.key_is_landmark = whole
        if self.remembers:
            self._held["landmarks"] = whole if self._kept is None else whole.gather(1, self._kept)
