"""One column in each row of a stream of fixed shapes, and who computes it.

Shapes: B batch, E hidden size.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from gcattn.chunking.token_layout import TokenLayout


class Captured(Protocol):
    """A computation on the tensors of a fixed stream that can be replayed."""

    def replay(self, model: nn.Module) -> Tensor | None:
        """Compute a column, hidden states [B, 1, E]; None if the model has changed since."""


class ColumnRows:
    """The rows that have a column.

    Attributes:
        which: Whether each row has one.
        counts: The same as 0 and 1, int64 [B], on the CPU.
        reads: The same on the model's device.
        numbers: The rows that have one, [n], on the model's device.
    """

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.which: list[bool] = []
        self.counts = torch.zeros(num_rows, dtype=torch.long)
        self.reads = torch.zeros(num_rows, dtype=torch.long, device=device)
        self.numbers = self.reads[:0]

    def set(self, which: list[bool]) -> None:
        """Set which they are."""
        self.which, self.counts = which, torch.tensor(which).long()
        # copies that block would wait for all that the device still computes
        self.reads.copy_(self.counts, non_blocking=True)
        self.numbers = self.counts.nonzero().flatten().to(self.reads.device, non_blocking=True)


class ColumnStep:
    """A token, or a landmark, in some of the rows.

    Args:
        layout: Of the column.

    Attributes:
        rows: Which rows have one.
        captured: The column's captured computation, if there is one.
        num_computed: Columns that were computed without it.
    """

    def __init__(self, layout: TokenLayout) -> None:
        self.layout = layout
        self.rows = ColumnRows(len(layout.documents), layout.documents.device)
        self.captured: Captured | None = None
        self.num_computed = 0

    def set(self, which: list[bool], documents: Tensor) -> None:
        """Set which rows have a column, and in which document [B, 1] it would be."""
        if which != self.rows.which:
            self.rows.set(which)
            used = self.rows.reads[:, None] > 0
            self.layout.documents.copy_(torch.where(used, documents, -1))
