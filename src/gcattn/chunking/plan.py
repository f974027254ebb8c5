"""Decide where every token of one forward call sits, and where chunks close.

A chunk closes when it holds S - 1 tokens, after a token that the caller marked, and before the
first token of another document. Plans are made on the CPU: they hold a few integers per token, and
their sizes decide the shapes of everything that follows.

Shapes: B batch, T tokens, S slots per chunk.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gcattn.chunking.state import ChunkState
from gcattn.chunking.table import ColumnPlaces, TableLayout


def plan_chunks(
    batch_size: int,
    num_tokens: int,
    chunk_size: int,
    *,
    valid: Tensor | None = None,
    chunk_breaks: Tensor | None = None,
    document_ids: Tensor | None = None,
    state: ChunkState | None = None,
) -> tuple[TableLayout, ChunkState]:
    """Lay out the tokens of one call after whatever the rows already hold.

    Args:
        batch_size: B.
        num_tokens: T, padding included.
        chunk_size: S; a chunk holds at most S - 1 tokens and its landmark.
        valid: False where a token is padding, bool [B, T]; padding may be anywhere and takes no
            column.
        chunk_breaks: True where the chunk closes after this token, bool [B, T], or [B, T + 1]
            whose first column closes the chunk that is open before the call.
        document_ids: Document of each token, integers [B, T]; a change closes the chunk, restarts
            the positions and hides everything before.
        state: Where the rows stand; the beginning without it.

    Returns:
        The layout of this call (on the CPU) and the state after it.

    Raises:
        ValueError: Every token is padding.
    """
    state = ChunkState.start(batch_size) if state is None else state
    everything = torch.ones(batch_size, num_tokens, dtype=torch.bool)
    valid = everything if valid is None else valid.cpu().bool()
    if not valid.any():
        raise ValueError("There is no token to lay out: attention_mask is 0 everywhere.")
    breaks = ~everything if chunk_breaks is None else chunk_breaks.cpu().bool()
    closes_first = breaks[:, :-num_tokens].any(1)  # [B]
    breaks = breaks[:, -num_tokens:]
    ids = (
        state.document_id[:, None].expand_as(valid) if document_ids is None else document_ids.cpu()
    )

    # rank space: the row's real tokens in order, padding after them
    token_at = (~valid).int().argsort(dim=1, stable=True)  # [B, T]
    counts = valid.sum(1)  # [B]
    rank = torch.arange(num_tokens).expand_as(valid)
    real = rank < counts[:, None]
    tokens = _RankedTokens(
        real=real,
        closes_first=closes_first,
        breaks=breaks.gather(1, token_at) & real,
        ids=ids.gather(1, token_at).long(),
    )
    placed = _place(tokens, state, chunk_size)
    layout = _lay_out(placed, state, token_at, real, valid, chunk_size)
    return layout, _state_after(placed, tokens, counts, state)


@dataclass(frozen=True)
class _RankedTokens:
    real: Tensor  # bool [B, T]
    closes_first: Tensor  # bool [B]
    breaks: Tensor  # bool [B, T]
    ids: Tensor  # [B, T]


@dataclass(frozen=True)
class _PlacedTokens:
    """Where the real tokens went, in rank space, all [B, T] but `leading` [B]."""

    leading: Tensor  # bool: a landmark comes before the first token, closing the open chunk
    closes: Tensor  # bool: a landmark follows this token
    column: Tensor
    chunk: Tensor  # counted from the chunk that was open before the call
    slot: Tensor
    position: Tensor
    document: Tensor


def _place(tokens: _RankedTokens, state: ChunkState, chunk_size: int) -> _PlacedTokens:
    real, ids = tokens.real, tokens.ids
    rank = torch.arange(real.shape[1]).expand_as(real)
    new_document = torch.zeros_like(real)
    new_document[:, 1:] = (ids[:, 1:] != ids[:, :-1]) & real[:, 1:]
    new_document[:, :1] = ((ids[:, :1] != state.document_id[:, None]) & real[:, :1]) & (
        state.started[:, None]
    )
    leading = (new_document[:, 0] | (tokens.closes_first & real[:, 0])) & (state.open_length > 0)

    forced = tokens.breaks.clone()
    forced[:, :-1] |= new_document[:, 1:]
    # a run is a stretch of tokens without a forced close: within it chunks fill up regularly
    run_start = torch.zeros_like(real)
    run_start[:, :1] = True
    run_start[:, 1:] = forced[:, :-1]
    start = torch.where(run_start, rank, 0).cummax(1).values
    carried = torch.where(leading, 0, state.open_length)[:, None]
    slot = (rank - start + torch.where(start == 0, carried, 0)) % (chunk_size - 1)
    closes = (forced | (slot == chunk_size - 2)) & real

    landmarks_before = leading.long()[:, None] + closes.cumsum(1) - closes.long()
    column = rank + landmarks_before
    document_start = torch.where(new_document, column, -1).cummax(1).values
    position = torch.where(
        document_start < 0, column + state.next_position[:, None], column - document_start
    )
    document = state.document[:, None] + new_document.cumsum(1)
    return _PlacedTokens(leading, closes, column, landmarks_before, slot, position, document)


def _lay_out(
    placed: _PlacedTokens,
    state: ChunkState,
    token_at: Tensor,
    real: Tensor,
    valid: Tensor,
    chunk_size: int,
) -> TableLayout:
    B, _ = real.shape
    num_closed = placed.closes.sum(1) + placed.leading
    num_columns = int((real.sum(1) + num_closed).max())
    shape = (B, num_columns)
    token = torch.full(shape, -1)
    position, chunk, slot = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    document = torch.full(shape, -1)
    lengths = torch.zeros(B, int(num_closed.max()), dtype=torch.long)

    row, at = real.nonzero(as_tuple=True)
    column = placed.column[row, at]
    token[row, column] = token_at[row, at]
    position[row, column] = placed.position[row, at]
    chunk[row, column] = placed.chunk[row, at]
    slot[row, column] = placed.slot[row, at]
    document[row, column] = placed.document[row, at]

    row, at = placed.closes.nonzero(as_tuple=True)
    column = placed.column[row, at] + 1
    position[row, column] = placed.position[row, at] + 1
    chunk[row, column] = placed.chunk[row, at]
    slot[row, column] = chunk_size - 1
    document[row, column] = placed.document[row, at]
    lengths[row, placed.chunk[row, at]] = placed.slot[row, at] + 1

    row = placed.leading.nonzero(as_tuple=True)[0]
    first = torch.zeros_like(row)
    position[row, first] = state.next_position[row]
    slot[row, first] = chunk_size - 1
    document[row, first] = state.document[row]
    lengths[row, first] = state.open_length[row]

    column_of_rank = torch.where(real, placed.column, 0)
    column_of_token = torch.zeros_like(column_of_rank).scatter(1, token_at, column_of_rank)
    return TableLayout.build(
        chunk_size,
        ColumnPlaces(token, position, document, chunk, slot),
        column_of_token=torch.where(valid, column_of_token, -1),
        chunk_lengths=lengths,
        first_chunk=state.num_chunks,
        continues=torch.ones(B, dtype=torch.bool),
    )


def _state_after(
    placed: _PlacedTokens, tokens: _RankedTokens, counts: Tensor, state: ChunkState
) -> ChunkState:
    last = (counts - 1).clamp_min(0)[:, None]
    closed, slot, position, document, ids = (
        x.gather(1, last).squeeze(1)
        for x in (placed.closes, placed.slot, placed.position, placed.document, tokens.ids)
    )
    seen = counts > 0
    return ChunkState(
        open_length=torch.where(seen, torch.where(closed, 0, slot + 1), state.open_length),
        num_chunks=state.num_chunks + placed.closes.sum(1) + placed.leading,
        next_position=torch.where(seen, position + 1 + closed, state.next_position),
        document=torch.where(seen, document, state.document),
        document_id=torch.where(seen, ids, state.document_id),
        started=state.started | seen,
    )
