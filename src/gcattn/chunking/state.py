"""What chunking has to remember between two forward calls on the same rows.

Shapes: B batch.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChunkState:
    """Where each row of a stream stands; small int64 tensors [B] that stay on the CPU."""

    open_length: Tensor  # tokens in the open chunk, 0 … S - 2
    num_chunks: Tensor  # finished chunks
    next_position: Tensor  # position of the next column in its document
    document: Tensor  # number of the current document, counted from 0
    document_id: Tensor  # the caller's id of that document
    started: Tensor  # bool: the row has seen a token

    @classmethod
    def start(cls, batch_size: int) -> Self:
        """Return the state of `batch_size` rows that have seen nothing."""
        zeros = torch.zeros(batch_size, dtype=torch.long)
        return cls(zeros, zeros, zeros, zeros, zeros, zeros.bool())

    def select(self, rows: Tensor) -> Self:
        """Return the state of the given rows, [B'], in their order; rows may repeat."""
        rows = rows.cpu()
        return replace(self, **{name: value[rows] for name, value in vars(self).items()})
