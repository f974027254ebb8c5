"""The columns that the convolution over embeddings continues from.

Shapes: B batch, L columns, n taps, E hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.carried import CarriedState


class ColumnTail(CarriedState):
    """The last used columns of each row, before the convolution.

    Args:
        num_columns: n - 1, the columns that a convolution of n taps looks back.
        remembers: Keep them for the next call.
    """

    def __init__(self, num_columns: int, *, remembers: bool = True) -> None:
        super().__init__(remembers=remembers)
        self._num_columns = num_columns

    def extend(self, columns: Tensor, layout: ChunkLayout) -> Tensor:
        """Put the kept columns, or zeros, in front: [B, L, E] → [B, n - 1 + L, E]."""
        kept = self._held.get("states")
        if kept is None:
            whole = F.pad(columns, (0, 0, self._num_columns, 0))
        else:
            whole = torch.cat([kept, columns], dim=1)
        if self.remembers:
            assert layout.documents is not None  # only a call that keeps nothing leaves them out
            if layout.is_full:
                last = whole[:, whole.shape[1] - self._num_columns :]
                self._held["states"] = last.detach().clone()
                return whole
            num_used = (layout.documents >= 0).sum(1, keepdim=True)
            place = num_used + torch.arange(self._num_columns, device=columns.device)
            index = place.unsqueeze(-1).expand(-1, -1, columns.shape[-1])
            self._held["states"] = whole.gather(1, index).detach()
        return whole
