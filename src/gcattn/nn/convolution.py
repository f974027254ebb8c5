"""Short causal convolutions, channel by channel: every column knows what came just before it.

Copying needs "what followed this token?", and a question needs "what was just said?". Attention
learns to look one token back only after many millions of tokens; a few weights per channel give it
from the first step (docs/training.md has what that changes).

Shapes: B batch, L columns, S slots per chunk, E hidden size, n taps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcattn.ops.pointwise import mix_columns


class ColumnConvolution(nn.Module):
    """Mix every column with the columns before it in its document."""

    def __init__(self, num_taps: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_taps, hidden_size))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Convolve, [B, n - 1 + L, E] → [B, L, E].

        Args:
            x: Columns, after the n - 1 columns before them.
            positions: Of the columns in their document, [B, L] or [1, L]: none reaches beyond its
                document's beginning.
        """
        return mix_columns(x, self.weight, positions)


class SlotConvolution(nn.Module):
    """Mix every slot with the slots before it in the same chunk."""

    def __init__(self, num_taps: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_taps, hidden_size))

    def forward(self, x: Tensor, in_front: Tensor) -> Tensor:
        """Convolve, [..., S, E] → [..., S, E].

        Args:
            x: Slots.
            in_front: What stands before the first slot, [..., E]; before that there are zeros.
        """
        whole = torch.cat([in_front.unsqueeze(-2), x], dim=-2)
        out = x * self.weight[0].to(x.dtype)
        for i in range(1, self.weight.shape[0]):
            out = out + F.pad(whole, (0, 0, i - 1, -i)) * self.weight[i].to(x.dtype)
        return out
