"""The layout of rows that are whole and fresh: every chunk full, so that all views are reshapes.

Rows without padding, breaks and documents, in a call that nothing comes before and nothing follows,
as in training. It is the layout that `plan_chunks` gives for such rows, padded to whole chunks
after the last token. Nothing in it depends on data: no table is made, nothing is gathered,
`torch.compile` sees plain shapes, and training never waits for the host. What the padding columns
hold is never read: they come last, and attention only looks back.

Shapes: B batch, T tokens, L = C · S columns, C chunks touched, F chunks finished, S slots per
chunk, E hidden size.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class RegularLayout:
    """Places by arithmetic, for B rows of T tokens each; see `ChunkLayout`."""

    chunk_size: int  # S
    batch_size: int
    num_tokens: int
    device: torch.device
    first_chunk: int = 0  # of the stream, where this is the tail of a layout

    @property
    def num_chunks(self) -> int:
        """Chunks C that the rows touch; the last may be open."""
        return -(-self.num_tokens // (self.chunk_size - 1))

    @property
    def num_finished_chunks(self) -> int:
        """Chunks F that end with a landmark."""
        return self.num_tokens // (self.chunk_size - 1)

    @property
    def num_columns(self) -> int:
        """Number of columns L, padding included."""
        return self.num_chunks * self.chunk_size

    @property
    def positions(self) -> Tensor:
        """Position of each column, the same in all rows, [1, L]."""
        first = self.first_chunk * self.chunk_size
        return torch.arange(first, first + self.num_columns, device=self.device).unsqueeze(0)

    @property
    def documents(self) -> None:
        """Every row is one document: nothing has to be told apart."""
        return None

    @property
    def chunk_of_token(self) -> Tensor:
        """Number of each token's chunk in its row's stream, [B, T]."""
        token = torch.arange(self.num_tokens, device=self.device)
        return (self.first_chunk + token // (self.chunk_size - 1)).expand(self.batch_size, -1)

    @property
    def is_landmark(self) -> Tensor:
        """Whether each column is a landmark, bool [B, L]."""
        slot = torch.arange(self.num_columns, device=self.device) % self.chunk_size
        return (slot == self.chunk_size - 1).expand(self.batch_size, -1)

    @property
    def chunk_documents(self) -> None:
        """Every row is one document."""
        return None

    @property
    def is_full(self) -> bool:
        """True: padding after the last token is a column like any other."""
        return True

    @property
    def is_even(self) -> bool:
        """False: no state that keeps anything is told of such a layout."""
        return False

    @property
    def begins_chunks(self) -> bool:
        """True: nothing is before."""
        return True

    @property
    def is_ragged(self) -> bool:
        """False: every chunk is full."""
        return False

    @property
    def num_finished(self) -> Tensor:
        """Chunks that each row finished, [B]."""
        return torch.full((self.batch_size,), self.num_finished_chunks, device=self.device)

    @property
    def chunk_lengths(self) -> Tensor:
        """Tokens of each finished chunk, [B, F]."""
        shape = (self.batch_size, self.num_finished_chunks)
        return torch.full(shape, self.chunk_size - 1, device=self.device)

    @property
    def num_visible(self) -> Tensor:
        """Chunks before each finished chunk, [B, F]."""
        first = self.first_chunk
        before = torch.arange(first, first + self.num_finished_chunks, device=self.device)
        return before.expand(self.batch_size, -1)

    def columns_from_tokens(self, x: Tensor, landmark: Tensor) -> Tensor:
        """Place tokens, [B, T, E] → [B, L, E]; `landmark` [E] ends every chunk."""
        padding = self.num_chunks * (self.chunk_size - 1) - self.num_tokens
        chunks = F.pad(x, (0, 0, 0, padding)).unflatten(1, (self.num_chunks, -1))
        landmarks = landmark.expand(x.shape[0], self.num_chunks, 1, -1)
        return torch.cat([chunks, landmarks], dim=2).flatten(1, 2)

    def tokens_from_columns(self, x: Tensor, last: int = 0) -> Tensor:
        """Take what belongs to the `last` tokens (0: all), [B, L, E] → [B, T, E]."""
        tokens = self.grid_from_columns(x)[:, :, :-1].flatten(1, 2)
        return tokens[:, self.num_tokens - last if last else 0 : self.num_tokens]

    def grid_from_columns(self, x: Tensor) -> Tensor:
        """Bring columns into their chunks, [B, L, E] → [B, C, S, E]."""
        return x.unflatten(1, (self.num_chunks, self.chunk_size))

    def at_landmarks(self, x: Tensor) -> Tensor:
        """Take what belongs to landmarks, [B, L, E] → [B, F, E]."""
        return self.grid_from_columns(x)[:, : self.num_finished_chunks, -1]

    def blocks(self, *, from_landmark: bool) -> "RegularBlocks":
        """Group columns by the retrieval that serves them."""
        return RegularBlocks(self.num_chunks, self.chunk_size, from_landmark)

    def may_serve(self, asked_before: Tensor | None) -> None:
        """Every row is one document."""

    def tail(self, num_columns: int) -> Self:
        """Return the layout of the last columns, whole chunks so that it is regular too."""
        cut = self.num_chunks - self._kept_chunks(num_columns)
        if cut == 0:
            return self
        return replace(
            self,
            num_tokens=self.num_tokens - cut * (self.chunk_size - 1),
            first_chunk=self.first_chunk + cut,
        )

    def tail_columns(self, x: Tensor, num_columns: int) -> Tensor:
        """Take the columns of `tail`."""
        return x[:, (self.num_chunks - self._kept_chunks(num_columns)) * self.chunk_size :]

    def _kept_chunks(self, num_columns: int) -> int:
        padding = self.num_columns - self.num_tokens - self.num_finished_chunks
        return min(self.num_chunks, -(-(num_columns + padding) // self.chunk_size))

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        """Return the same layout on `device`."""
        return replace(self, device=device)

    def pin_memory(self) -> Self:
        """Return the same layout: it holds no tensor."""
        return self


@dataclass(frozen=True)
class RegularBlocks:
    """Blocks by arithmetic; see `BlockGrid`."""

    num_chunks: int
    chunk_size: int
    from_landmark: bool  # a block begins with the landmark of the chunk before

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return self.num_chunks + self.from_landmark

    def gather(self, x: Tensor) -> Tensor:
        """Bring columns into blocks, [B, L, …] → [B, blocks, S, …]."""
        if self.from_landmark:
            # the first block lacks a landmark before it, the last one everything after it
            x = F.pad(x, (0, 0) * (x.dim() - 2) + (1, self.chunk_size - 1))
        return x.unflatten(1, (self.num_blocks, self.chunk_size))

    def scatter(self, x: Tensor) -> Tensor:
        """Bring blocks back into columns, [B, blocks, S, …] → [B, L, …]."""
        columns = x.flatten(1, 2)
        if self.from_landmark:
            columns = columns[:, 1 : 1 + self.num_chunks * self.chunk_size]
        return columns

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        """Return the same grid: it holds no tensor."""
        return self

    def pin_memory(self) -> Self:
        """Return the same grid: it holds no tensor."""
        return self
