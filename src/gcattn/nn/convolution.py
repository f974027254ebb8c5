"""Short causal convolutions, channel by channel: every column knows what came just before it.

Copying needs "what followed this token?", and a question needs "what was just said?". Attention
learns to look one token back only after many millions of tokens; a few weights per channel give it
from the first step (docs/retrieval.md has what that changes).

Shapes: B batch, L columns, S slots per chunk, E hidden size, n taps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ColumnConvolution(nn.Module):
    """Mix every column with the columns before it in its document."""

    def __init__(self, num_taps: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_taps, hidden_size))

    def forward(self, x: Tensor, positions: Tensor, before: Tensor | None = None) -> Tensor:
        """Convolve, [B, L, E] → [B, L, E].

        Args:
            x: Columns.
            positions: Of the columns in their document, [B, L] or [1, L].
            before: The n - 1 columns that earlier calls ended with, [B, n - 1, E]; zeros without
                it.
        """
        first = self.weight.shape[0] - 1
        whole = F.pad(x, (0, 0, first, 0)) if before is None else torch.cat([before, x], dim=1)
        out = x * self.weight[0].to(x.dtype)
        for i in range(1, first + 1):
            earlier = whole[:, first - i : whole.shape[1] - i] * self.weight[i].to(x.dtype)
            out = out + torch.where((positions >= i).unsqueeze(-1), earlier, 0)
        return out

    def last_columns(self, x: Tensor, num_used: Tensor, before: Tensor | None) -> Tensor:
        """Return the n - 1 columns that the next call follows on, [B, n - 1, E].

        Args:
            x: Columns, [B, L, E], those used in front.
            num_used: How many of them are, [B].
            before: As in `forward`.
        """
        first = self.weight.shape[0] - 1
        whole = F.pad(x, (0, 0, first, 0)) if before is None else torch.cat([before, x], dim=1)
        place = num_used.unsqueeze(-1) + torch.arange(first, device=x.device)
        return whole.gather(1, place.unsqueeze(-1).expand(-1, -1, x.shape[-1])).detach()


class SlotConvolution(nn.Module):
    """Mix every slot with the slots before it in the same chunk."""

    def __init__(self, num_taps: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_taps, hidden_size))

    def forward(self, x: Tensor, in_front: Tensor) -> Tensor:
        """Convolve, [..., S, E] → [..., S, E].

        Args:
            x: Slots.
            in_front: What stands in front of the first slot, [..., E]; before that there are zeros.
        """
        whole = torch.cat([in_front.unsqueeze(-2), x], dim=-2)
        out = x * self.weight[0].to(x.dtype)
        for i in range(1, self.weight.shape[0]):
            out = out + F.pad(whole, (0, 0, i - 1, -i)) * self.weight[i].to(x.dtype)
        return out
