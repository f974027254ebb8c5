"""Where each token and landmark of one forward call sits, and how to move between the views.

Three views of the same hidden states: tokens [B, T] (what the caller sees), columns [B, L] (what
the decoder sees: tokens and landmarks, padding after them) and the chunk grid [B, C, S].

There are two ways to know the places, and callers need not know which: a table of them
(`TableLayout`), and arithmetic where rows are whole and fresh (`RegularLayout`).

Shapes: B batch, T tokens, L columns, C chunks touched by the call, F chunks finished by it, S slots
per chunk, M query slots per block.
"""

from typing import Protocol

from torch import Tensor


class BlockGrid(Protocol):
    """Columns grouped into blocks that are served by the same retrieval."""

    @property
    def num_blocks(self) -> int:
        """Number of blocks, at least 1."""

    def gather(self, x: Tensor) -> Tensor:
        """Bring columns into blocks, [B, L, …] → [B, blocks, M, …]; unused places are zero."""

    def scatter(self, x: Tensor) -> Tensor:
        """Bring blocks back into columns, [B, blocks, M, …] → [B, L, …]."""


class ChunkLayout(Protocol):
    """Places of the tokens and landmarks of one call."""

    @property
    def num_columns(self) -> int:
        """Number of columns L, unused ones included."""

    @property
    def num_finished_chunks(self) -> int:
        """Chunks F that the fullest row finished."""

    @property
    def positions(self) -> Tensor:
        """Position of each column in its document, [B, L], or [1, L] if the same in all rows."""

    @property
    def documents(self) -> Tensor | None:
        """Document of each column, [B, L]; -1 for unused columns. None: one document a row."""

    @property
    def chunk_of_token(self) -> Tensor:
        """Number of each token's chunk in its row's stream, [B, T]; -1 for padding."""

    @property
    def is_landmark(self) -> Tensor:
        """Whether each column is a landmark, bool [B, L]."""

    @property
    def chunk_documents(self) -> Tensor | None:
        """Document of each finished chunk, [B, F]; -1 where the row finished fewer; None: one."""

    @property
    def chunk_lengths(self) -> Tensor:
        """Tokens of each finished chunk, [B, F], 0 where the row finished fewer."""

    @property
    def num_visible(self) -> Tensor:
        """Chunks before each finished chunk in its stream, [B, F]; 0 where there is none."""

    @property
    def num_finished(self) -> Tensor:
        """Chunks that each row finished, [B]."""

    @property
    def is_full(self) -> bool:
        """Whether every column of every row is used; known without looking on the device."""

    @property
    def is_even(self) -> bool:
        """Whether each row uses every column and finishes F >= 1 full chunks of its first document.

        Known without looking on the device: what a state keeps is then in the same place in all
        rows. False says nothing.
        """

    @property
    def begins_chunks(self) -> bool:
        """Whether no row has an open chunk before, if that is known without looking."""

    @property
    def is_ragged(self) -> bool:
        """Whether a finished chunk may hold fewer than S - 1 tokens."""

    def columns_from_tokens(self, x: Tensor, landmark: Tensor) -> Tensor:
        """Place tokens, [B, T, …] → [B, L, …]; `landmark` fills every other column."""

    def tokens_from_columns(self, x: Tensor, last: int = 0) -> Tensor:
        """Take what belongs to the `last` tokens (0: all), [B, L, …] → [B, T, …]."""

    def grid_from_columns(self, x: Tensor) -> Tensor:
        """Bring columns into their chunks, [B, L, …] → [B, C, S, …]; unused slots are zero."""

    def at_landmarks(self, x: Tensor) -> Tensor:
        """Take what belongs to landmarks, [B, L, …] → [B, F, …]."""

    def blocks(self, *, from_landmark: bool) -> BlockGrid:
        """Group columns by the retrieval that serves them.

        Block j holds what the landmark of chunk j - 1 retrieved for: the columns of chunk j, or,
        with `from_landmark`, the landmark of chunk j - 1 and the tokens of chunk j.
        """

    def may_serve(self, asked_before: Tensor | None) -> Tensor | None:
        """Tell whether what the landmark before each block retrieved may serve it, [B, C + 1].

        It may not where the block belongs to another document than that landmark.

        Args:
            asked_before: Document of the last landmark before the call, [B]; None: there is none.

        Returns:
            None where it always may.
        """

    def tail(self, num_columns: int) -> "ChunkLayout":
        """Return the layout of at least each row's last `num_columns` used columns.

        A layout that has no more is returned itself.
        """

    def tail_columns(self, x: Tensor, num_columns: int) -> Tensor:
        """Take the columns of `tail`, in its order."""
