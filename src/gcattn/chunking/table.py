"""A layout by tables: any padding, breaks and documents, after whatever the rows already hold.

Shapes: B batch, T tokens, L columns, C chunks touched by the call, F chunks finished by it, S slots
per chunk, M query slots per block.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.chunking.moves import gather_columns, move_columns


@dataclass(frozen=True)
class TableBlocks:
    """Blocks by their places; as wide as the fullest of them: S in a prompt, 1 or 2 for a token."""

    column: Tensor  # [B, C, M], the column in each place, -1 where there is none
    place: Tensor  # [B, L], block · M + place within it, -1 for unused columns
    is_whole: bool  # one block holds all columns as they are; known to the host

    @property
    def num_blocks(self) -> int:
        """Number of blocks C, at least 1."""
        return self.column.shape[1]

    def gather(self, x: Tensor) -> Tensor:
        """Bring columns into blocks, [B, L, …] → [B, C, M, …]; unused places are zero."""
        if self.is_whole:
            return x.unsqueeze(1)
        return move_columns(x, self.column, lambda: self.place)

    def scatter(self, x: Tensor) -> Tensor:
        """Bring blocks back into columns, [B, C, M, …] → [B, L, …]; unused columns are zero."""
        if self.is_whole:
            return x.squeeze(1)
        return move_columns(x.flatten(1, 2), self.place, lambda: self.column.flatten(1))

    def expand(self, batch_size: int) -> Self:
        """Return the blocks of one row for `batch_size` equal rows, without copying."""
        column, place = self.column.expand(batch_size, -1, -1), self.place.expand(batch_size, -1)
        return replace(self, column=column, place=place)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        """Return the same grid on `device`."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same grid in memory that a GPU can read."""
        return self._map(lambda x: x.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, column=change(self.column), place=change(self.place))


@dataclass(frozen=True)
class ColumnPlaces:
    """What each column is; int64 [B, L]."""

    token: Tensor  # token in this column; -1 for landmarks and unused columns
    position: Tensor  # counted within the document
    document: Tensor  # number of the document, -1 for unused columns
    chunk: Tensor  # chunk counted from the layout's first one
    slot: Tensor  # 0 … S - 1; landmarks sit at S - 1


@dataclass(frozen=True)
class TableLayout:
    """Places by tables; -1 marks a place that nothing occupies. See `ChunkLayout`."""

    chunk_size: int  # S
    columns: ColumnPlaces
    column_of_token: Tensor  # [B, T]
    column_of_slot: Tensor  # [B, C, S]
    landmark_column: Tensor  # [B, F]
    chunk_lengths: Tensor  # [B, F], tokens of each finished chunk, 0 where the row finished fewer
    chunk_document: Tensor  # [B, C], document of the chunk
    first_chunk: Tensor  # [B], number of the layout's first chunk within the row's stream
    continues: Tensor  # bool [B], the layout begins where the previous call ended
    # known to the host, so that decoding a token need not look anything up on the device
    is_full: bool  # every column of every row is used
    is_plain: bool  # the columns are the tokens, in their order
    is_even: bool  # see `ChunkLayout`
    begins_chunks: bool

    @classmethod
    def build(
        cls,
        chunk_size: int,
        columns: ColumnPlaces,
        column_of_token: Tensor,
        chunk_lengths: Tensor,
        first_chunk: Tensor,
        continues: Tensor,
    ) -> Self:
        """Derive the inverse maps from the places of the columns."""
        B = columns.chunk.shape[0]
        num_chunks = int(columns.chunk.max()) + 1
        row, column = (columns.document >= 0).nonzero(as_tuple=True)
        chunk = columns.chunk[row, column]
        column_of_slot = torch.full((B, num_chunks, chunk_size), -1)
        column_of_slot[row, chunk, columns.slot[row, column]] = column
        chunk_document = torch.full((B, num_chunks), -1)
        chunk_document[row, chunk] = columns.document[row, column]
        is_full = row.numel() == columns.document.numel()
        same_shape = column_of_token.shape == columns.token.shape
        order = torch.arange(column_of_token.shape[1])
        return cls(
            chunk_size=chunk_size,
            columns=columns,
            column_of_token=column_of_token,
            column_of_slot=column_of_slot,
            landmark_column=column_of_slot[:, : chunk_lengths.shape[1], -1],
            chunk_lengths=chunk_lengths,
            chunk_document=chunk_document,
            first_chunk=first_chunk,
            continues=continues,
            is_full=is_full,
            is_plain=is_full and same_shape and bool((column_of_token == order).all()),
            is_even=is_full
            and chunk_lengths.shape[1] > 0
            and bool((chunk_lengths == chunk_size - 1).all())
            and not columns.document.any(),
            begins_chunks=bool((column_of_slot[:, 0, 0] >= 0).all()),
        )

    @property
    def is_ragged(self) -> bool:
        """True: chunks may be closed early."""
        return True

    @property
    def num_columns(self) -> int:
        """Number of columns L."""
        return self.columns.token.shape[1]

    @property
    def num_finished_chunks(self) -> int:
        """Chunks F that the fullest row finished."""
        return self.landmark_column.shape[1]

    @property
    def positions(self) -> Tensor:
        """Position of each column in its document, [B, L]."""
        return self.columns.position

    @property
    def documents(self) -> Tensor:
        """Document of each column, [B, L]; -1 for unused columns."""
        return self.columns.document

    @property
    def chunk_of_token(self) -> Tensor:
        """Number of each token's chunk in its row's stream, [B, T]; -1 for padding."""
        chunk = self.columns.chunk.gather(1, self.column_of_token.clamp_min(0))
        return torch.where(self.column_of_token >= 0, chunk + self.first_chunk[:, None], -1)

    @property
    def is_landmark(self) -> Tensor:
        """Whether each column is a landmark, bool [B, L]."""
        return (self.columns.document >= 0) & (self.columns.slot == self.chunk_size - 1)

    @property
    def chunk_documents(self) -> Tensor:
        """Document of each finished chunk, [B, F]; -1 where the row finished fewer."""
        finished = self.chunk_document[:, : self.num_finished_chunks]
        if self.is_even:
            return finished
        return torch.where(self.chunk_lengths > 0, finished, -1)

    @property
    def num_finished(self) -> Tensor:
        """Chunks that each row finished, [B]."""
        return (self.chunk_lengths > 0).sum(1)

    @property
    def num_visible(self) -> Tensor:
        """Chunks before each finished chunk in its stream, [B, F]; 0 where there is none."""
        visible = torch.arange(self.num_finished_chunks, device=self.first_chunk.device)
        visible = visible + self.first_chunk[:, None]
        return visible if self.is_even else torch.where(self.chunk_lengths > 0, visible, 0)

    def columns_from_tokens(self, x: Tensor, landmark: Tensor) -> Tensor:
        """Place tokens, [B, T, …] → [B, L, …]; `landmark` fills every other column."""
        if self.is_plain:
            return x
        return move_columns(x, self.columns.token, lambda: self.column_of_token, fill=landmark)

    def tokens_from_columns(self, x: Tensor, last: int = 0) -> Tensor:
        """Take what belongs to the `last` tokens (0: all), [B, L, …] → [B, T, …]."""
        if self.is_plain:
            return x[:, x.shape[1] - last if last else 0 :]
        if last:
            return gather_columns(x, self.column_of_token[:, -last:])
        return move_columns(x, self.column_of_token, lambda: self.columns.token)

    def grid_from_columns(self, x: Tensor) -> Tensor:
        """Bring columns into their chunks, [B, L, …] → [B, C, S, …]; unused slots are zero."""
        return move_columns(x, self.column_of_slot, self._slot_of_column)

    def at_landmarks(self, x: Tensor) -> Tensor:
        """Take what belongs to landmarks, [B, L, …] → [B, F, …]."""
        return move_columns(x, self.landmark_column, self._landmark_of_column)

    def _slot_of_column(self) -> Tensor:
        """Return the place of each column in the grid, chunk · S + slot, [B, L]."""
        place = self.columns.chunk * self.chunk_size + self.columns.slot
        return torch.where(self.columns.document >= 0, place, -1)

    def _landmark_of_column(self) -> Tensor:
        """Return the chunk of each landmark, -1 for all other columns, [B, L]."""
        return torch.where(self.is_landmark, self.columns.chunk, -1)

    def blocks(self, *, from_landmark: bool) -> TableBlocks:
        """Group columns by the retrieval that serves them."""
        document, slot = self.columns.document, self.columns.slot
        block = self.columns.chunk + (from_landmark & (slot == self.chunk_size - 1)).long()
        order = torch.arange(self.num_columns).expand_as(block)
        begins = torch.ones_like(block, dtype=torch.bool)
        begins[:, 1:] = block[:, 1:] != block[:, :-1]
        within = order - torch.where(begins, order, 0).cummax(1).values
        used = document >= 0
        num_blocks = int(torch.where(used, block, 0).max()) + 1
        width = int(torch.where(used, within, 0).max()) + 1
        place = torch.where(used, block * width + within, -1)
        column = torch.full((block.shape[0], num_blocks * width), -1)
        row, at = used.nonzero(as_tuple=True)
        column[row, place[row, at]] = at
        is_whole = self.is_full and num_blocks == 1
        return TableBlocks(column.unflatten(1, (num_blocks, width)), place, is_whole)

    def may_serve(self, asked_before: Tensor | None) -> Tensor | None:
        """Tell whether what the landmark before each block retrieved may serve it, [B, C + 1]."""
        if self.is_even:  # there was no document before the first one
            return None
        if asked_before is None:
            carried = torch.full_like(self.first_chunk, -1)
        else:
            carried = torch.where(self.continues, asked_before, -1)
        asked_by = torch.cat([carried.unsqueeze(1), self.chunk_document], dim=1)
        read_by = F.pad(self.chunk_document, (0, 1), value=-1)
        # after a row's last landmark there may be no chunk yet: nothing but the landmark reads
        return (asked_by == read_by) | (read_by == -1)

    def tail(self, num_columns: int) -> Self:
        """Return the layout of each row's last `num_columns` used columns."""
        if num_columns >= self.num_columns:
            return self
        used = (self.columns.document >= 0).sum(1)
        start = (used - num_columns).clamp_min(0)
        kept = start[:, None] + torch.arange(num_columns)
        inside = kept < used[:, None]
        kept = torch.where(inside, kept, 0)
        shift = self.columns.chunk.gather(1, start[:, None])
        columns = ColumnPlaces(
            token=self.columns.token.gather(1, kept).masked_fill(~inside, -1),
            position=self.columns.position.gather(1, kept),
            document=self.columns.document.gather(1, kept).masked_fill(~inside, -1),
            chunk=(self.columns.chunk.gather(1, kept) - shift).masked_fill(~inside, 0),
            slot=self.columns.slot.gather(1, kept).masked_fill(~inside, 0),
        )
        finished = self.num_finished[:, None] - shift
        lengths = shift + torch.arange(int(finished.max().clamp_min(0)))
        return self.build(
            self.chunk_size,
            columns,
            column_of_token=(self.column_of_token - start[:, None]).clamp_min(-1),
            chunk_lengths=_shift_lengths(self.chunk_lengths, lengths),
            first_chunk=self.first_chunk + shift.squeeze(1),
            continues=self.continues & (start == 0),
        )

    def tail_columns(self, x: Tensor, num_columns: int) -> Tensor:
        """Take each row's last `num_columns` used columns, in the order of `tail`."""
        if num_columns >= self.num_columns:
            return x
        used = (self.columns.document >= 0).sum(1)
        start = (used - num_columns).clamp_min(0)
        kept = start[:, None] + torch.arange(num_columns, device=x.device)
        return gather_columns(x, torch.where(kept < used[:, None], kept, -1))

    def moved(self, chunk: Tensor, position: Tensor, document: Tensor | None) -> Self:
        """Return the layout of rows that stand so many chunks, columns and documents on, [B].

        None for `document`: all rows stand in their first one.
        """
        columns, chunk_document = self.columns, self.chunk_document
        shift = position[:, None]
        if not self.is_full:
            shift = (columns.document >= 0) * shift
        columns = replace(columns, position=columns.position + shift)
        if document is not None:
            used = columns.document >= 0
            columns = replace(columns, document=columns.document + used * document[:, None])
            chunk_document = chunk_document + (chunk_document >= 0) * document[:, None]
        return replace(
            self,
            columns=columns,
            chunk_document=chunk_document,
            first_chunk=self.first_chunk + chunk,
            is_even=self.is_even and document is None,
        )

    def expand(self, batch_size: int) -> Self:
        """Return the layout of one row for `batch_size` equal rows, without copying."""
        return self._map(lambda x: x.expand(batch_size, *x.shape[1:]))

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        """Return the same layout on `device`."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same layout in memory that a GPU can read."""
        return self._map(lambda x: x.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        columns = ColumnPlaces(**{name: change(x) for name, x in vars(self.columns).items()})
        own: dict[str, Any] = {n: change(x) for n, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, columns=columns, **own)


def _shift_lengths(lengths: Tensor, index: Tensor) -> Tensor:
    """Read lengths [B, F] at `index` [B, F'], 0 beyond the end."""
    padded = F.pad(lengths, (0, 1))
    return padded.gather(1, index.clamp_max(lengths.shape[1]))
