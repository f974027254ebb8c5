"""The layout of one token in each row that closes no chunk: nothing about it is planned.

It is the layout that `plan_chunks` gives for such a token. Its tensors are those that the stream
counts in, so that the same ones serve every token.

Shapes: B batch, L = 1 column, F = 0 finished chunks.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from gcattn.chunking.table import TableBlocks


@dataclass(frozen=True)
class TokenLayout:
    """Places of B tokens; see `ChunkLayout`."""

    positions: Tensor  # [B, 1]
    documents: Tensor  # [B, 1], -1 in rows whose token is padding

    @property
    def num_columns(self) -> int:
        """One column."""
        return 1

    @property
    def num_finished_chunks(self) -> int:
        """No chunk is finished."""
        return 0

    @property
    def chunk_documents(self) -> Tensor:
        """No chunk, [B, 0]."""
        return self.documents[:, :0]

    @property
    def chunk_lengths(self) -> Tensor:
        """No chunk, [B, 0]."""
        return self.chunk_documents

    @property
    def num_visible(self) -> Tensor:
        """No chunk, [B, 0]."""
        return self.chunk_documents

    @property
    def num_finished(self) -> Tensor:
        """No chunk is finished, [B]."""
        return torch.zeros_like(self.documents[:, 0])

    @property
    def chunk_of_token(self) -> Tensor:
        """Not known here: the stream counts chunks on the host, [B, 1]."""
        return torch.full_like(self.documents, -1)

    @property
    def is_landmark(self) -> Tensor:
        """No column is one, bool [B, 1]."""
        return torch.zeros_like(self.documents, dtype=torch.bool)

    @property
    def is_full(self) -> bool:
        """False: a row's token may be padding."""
        return False

    @property
    def is_even(self) -> bool:
        """False: no chunk is finished."""
        return False

    @property
    def begins_chunks(self) -> bool:
        """False: how long the open chunk is, the device counts."""
        return False

    @property
    def is_ragged(self) -> bool:
        """True: chunks may be closed early."""
        return True

    def columns_from_tokens(self, x: Tensor, landmark: Tensor) -> Tensor:
        """Columns are tokens, [B, 1, …]."""
        return x

    def tokens_from_columns(self, x: Tensor, last: int = 0) -> Tensor:
        """Tokens are columns, [B, 1, …]."""
        return x

    def grid_from_columns(self, x: Tensor) -> Tensor:
        """Give the one slot that is filled, [B, 1, …] → [B, 1, 1, …]."""
        return x.unsqueeze(1)

    def at_landmarks(self, x: Tensor) -> Tensor:
        """Take nothing, [B, 0, …]."""
        return x[:, :0]

    def blocks(self, *, from_landmark: bool) -> TableBlocks:
        """Group the column by itself."""
        nothing = torch.zeros_like(self.documents)
        return TableBlocks(nothing.unsqueeze(1), nothing, is_whole=True)

    def may_serve(self, asked_before: Tensor | None) -> None:
        """What serves the token is settled before."""

    def tail(self, num_columns: int) -> Self:
        """Return itself."""
        return self

    def tail_columns(self, x: Tensor, num_columns: int) -> Tensor:
        """Take the column."""
        return x
