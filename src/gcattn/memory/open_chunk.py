"""The chunk that is not yet full: the lower decoder's states for its tokens.

Shapes: B batch, C chunks touched, S slots per chunk, E hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.carried import CarriedState


class OpenChunk(CarriedState):
    """The states in the open chunk of each row, [B, S, E]; zero where there is no token."""

    def extend(self, grid: Tensor, layout: ChunkLayout) -> Tensor:
        """Fill in the slots of earlier calls, [B, C, S, E] → [B, C, S, E]."""
        kept = self._held.get("states")
        if kept is not None and not layout.begins_chunks:
            # a slot is filled by one call and zero in all others
            grid = torch.cat([grid[:, :1] + kept.unsqueeze(1), grid[:, 1:]], dim=1)
        if not self.remembers:
            return grid
        if layout.is_even:
            num_finished = layout.num_finished_chunks
            is_open = num_finished < grid.shape[1]
            last = grid[:, num_finished].clone() if is_open else torch.zeros_like(grid[:, 0])
        else:
            rows = torch.arange(grid.shape[0], device=grid.device)
            # a row may have finished the last chunk that it touched
            padded = F.pad(grid, (0, 0, 0, 0, 0, 1))
            last = padded[rows, layout.num_finished]
        self._held["states"] = last.detach()
        return grid
