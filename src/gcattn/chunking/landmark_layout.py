"""The layout of the landmarks of chunks that were just filled, one column in each row.

It is the second column of a call whose token closes a chunk, by itself. Rows that close none have
an unused column. Nothing about it is planned: its tensors are those that the stream counts in.

Shapes: B batch, L = 1 column, F = 1 finished chunk.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gcattn.chunking.token_layout import TokenLayout


@dataclass(frozen=True)
class LandmarkLayout(TokenLayout):
    """Places of B landmarks; see `ChunkLayout`."""

    chunk_size: int  # S
    chunks: Tensor  # [B], chunks that each row had finished before

    @property
    def num_finished_chunks(self) -> int:
        """One chunk."""
        return 1

    @property
    def chunk_documents(self) -> Tensor:
        """Those of the columns, [B, 1]; -1 in rows that finish none."""
        return self.documents

    @property
    def chunk_lengths(self) -> Tensor:
        """Tokens of a full chunk, [B, 1]; 0 in rows that finish none."""
        return torch.where(self.documents >= 0, self.chunk_size - 1, 0)

    @property
    def num_visible(self) -> Tensor:
        """Chunks before the finished one, [B, 1]."""
        return torch.where(self.documents >= 0, self.chunks[:, None], 0)

    @property
    def num_finished(self) -> Tensor:
        """1 where a chunk is finished, [B]."""
        return (self.documents[:, 0] >= 0).long()

    @property
    def is_landmark(self) -> Tensor:
        """Every column in use is one, bool [B, 1]."""
        return self.documents >= 0

    def columns_from_tokens(self, x: Tensor, landmark: Tensor) -> Tensor:
        """Put a landmark in place of each token, [B, 1, …]."""
        return landmark.expand_as(x).contiguous()

    def at_landmarks(self, x: Tensor) -> Tensor:
        """Take every column, [B, 1, …]."""
        return x
