"""Carried states whose tensors keep their shapes and places, for one column at a time.

Each takes over what the cache's state holds (`fill`), is extended by one column at a time, and
hands back what it holds (`settle`). It writes only to unused places: until the counters move,
nothing has changed.

Shapes: B batch, W window, S slots per chunk, n taps, G key/value heads, D head dim, E hidden size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.column_tail import ColumnTail
from gcattn.memory.open_chunk import OpenChunk
from gcattn.memory.window import WindowCache
from gcattn.ops.native import has_kernels
from gcattn.ops.pointwise import write_columns


class Counters:
    """What moves with every column: on the device, and once more on the host.

    Attributes:
        columns: Columns since the stream was filled, [B].
        positions: Of the next column in its document, [B].
        slots: Tokens in the open chunk, [B].
        chunks: Finished chunks, [B].
    """

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.all = torch.zeros(4, num_rows, dtype=torch.long, device=device)
        self.rows = torch.arange(num_rows, device=device)
        self.columns, self.positions, self.slots, self.chunks = self.all

    def move(self, reads: Tensor) -> None:
        """Move on by one token in rows that read one, int64 [B]."""
        self.all[:3] += reads

    def close(self, closes: Tensor) -> None:
        """Move on by one landmark in rows that close a chunk, int64 [B]."""
        self.all[:2] += closes
        self.slots *= 1 - closes
        self.chunks += closes


class RingWindow(WindowCache):
    """The last W columns of each layer, [B, W, G, D]; the oldest one is overwritten."""

    def __init__(self, window: WindowCache, window_size: int, counters: Counters) -> None:
        super().__init__(window_size)
        self._counters = counters
        rows = len(counters.rows)
        held = window.tensors()
        documents = held.pop("documents")
        # keys and values of all layers in one tensor: they are filled and handed back at once
        like = next(iter(held.values()), torch.zeros(0, 0))
        self._dtype = like.dtype
        self._all = _rings(like, len(held), rows, window_size, *like.shape[2:])
        self._rings = dict(zip(held, self._all, strict=True))
        self.key_documents = documents.new_full((rows, window_size), -1)
        self._start = torch.zeros_like(counters.rows[:1])
        self._at = counters.rows

    def fill(self, window: WindowCache) -> None:
        """Take over what a window holds."""
        assert self.key_documents is not None
        held = window.tensors()
        documents = held.pop("documents")
        past = documents.shape[1]
        self.key_documents.fill_(-1)
        self.key_documents[:, :past] = documents
        if held:
            self._all[:, :, :past] = torch.stack([held[name] for name in self._rings])
        self._start.fill_(past)

    def begin(self, layout: ChunkLayout) -> None:
        """Register the column of this call."""
        assert self.key_documents is not None and layout.documents is not None
        self._at = self._place()
        self.key_documents[self._counters.rows, self._at] = layout.documents[:, 0]

    def next_column(self) -> "WindowColumn":
        """Return the column that the next one will overwrite."""
        assert self.key_documents is not None
        rows, at = self._counters.rows, self._place()
        return WindowColumn(at, self.key_documents[rows, at], self._all[:, rows, at])

    def put_back(self, column: "WindowColumn") -> None:
        """Restore a column that has been overwritten."""
        assert self.key_documents is not None
        rows = self._counters.rows
        self.key_documents[rows, column.at] = column.documents
        self._all[:, rows, column.at] = column.states

    def _place(self) -> Tensor:
        return (self._counters.columns + self._start) % self._window_size

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new column, [B, 1, G, D]; return all, [B, W, G, D]."""
        rings = self._rings[f"keys.{layer}"], self._rings[f"values.{layer}"]
        write_columns(rings, (keys, values), self._at)
        return rings

    def settle(self, window: WindowCache, num_new: list[int]) -> None:
        """Hand back the last columns in their order.

        Args:
            window: The cache's.
            num_new: Columns of each row since the window was filled.
        """
        assert self.key_documents is not None
        past = window.tensors()["documents"].shape[1]
        kept = min(self._window_size - 1, past + max(num_new))
        order = torch.arange(kept, device=self._start.device) - kept
        ends = (self._counters.columns + self._start)[:, None]
        place = (ends + order) % self._window_size  # [B, kept]
        rows = self._counters.rows[:, None]
        # rows that read fewer tokens reach back to places that have not been written
        columns = self._all[:, rows, place].to(self._dtype).contiguous()
        tensors = dict(zip(self._rings, columns, strict=True))
        tensors["documents"] = self.key_documents[rows, place]
        window.replace(tensors, all_used=window.is_all_used and min(num_new) == max(num_new))


def _rings(like: Tensor, *shape: int) -> Tensor:
    """Return rings [n, B, W, G, D], in the layout that single queries read fastest."""
    if not like.is_cpu or not all(shape):
        return like.new_zeros(shape)
    n, B, W, *heads = shape
    if has_kernels(B, like.dtype):
        return like.new_zeros(n, B, heads[0], W, heads[1]).transpose(2, 3)
    wide = torch.promote_types(like.dtype, torch.float32)
    return like.new_zeros(n, B, *heads, W, dtype=wide).permute(0, 1, 4, 2, 3)


class WindowColumn(NamedTuple):
    """A column of each row in a `RingWindow`."""

    at: Tensor  # [B], its place
    documents: Tensor  # [B]
    states: Tensor  # [keys and values of all layers, B, G, D]


class RingColumns(ColumnTail):
    """The last n columns before the convolution and one to spare, [B, n + 1, E].

    A landmark follows its token before the token is committed, so it must not overwrite what the
    token continued from.
    """

    def __init__(self, tail: ColumnTail, num_columns: int, counters: Counters) -> None:
        super().__init__(num_columns)
        self._counters = counters
        self._order = torch.arange(num_columns + 1, device=counters.rows.device)
        self._size = num_columns + 2
        self._ring = torch.zeros(0)
        if "states" in tail.tensors():  # otherwise the model has no convolution
            states = tail.tensors()["states"]
            self._ring = states.new_zeros(states.shape[0], self._size, states.shape[2])

    def fill(self, tail: ColumnTail) -> None:
        """Take over what a column tail holds."""
        if self._ring.numel():
            self._ring[:, : self._num_columns] = tail.tensors()["states"]

    def extend(self, columns: Tensor, layout: ChunkLayout) -> Tensor:
        """Write the new column, [B, 1, E]; return the last n in their order, [B, n, E]."""
        rows, places = self._counters.rows, self._places()
        self._ring[rows, places[:, -1]] = columns[:, 0]
        return self._ring[rows[:, None], places]

    def settle(self, tail: ColumnTail) -> None:
        """Hand back the last n - 1 columns."""
        if not self._ring.numel():
            return
        places = self._places()[:, :-1]
        tail.replace({"states": self._ring[self._counters.rows[:, None], places]})

    def _places(self) -> Tensor:
        return (self._counters.columns[:, None] + self._order) % self._size


class FixedOpenChunk(OpenChunk):
    """The open chunk [B, S, E], filled slot by slot."""

    def __init__(self, chunk: OpenChunk, counters: Counters) -> None:
        super().__init__()
        self._counters = counters
        held = chunk.tensors().get("states")  # a model without retrieval holds none
        self._states = torch.zeros(0) if held is None else torch.zeros_like(held)

    def fill(self, chunk: OpenChunk) -> None:
        """Take over what an open chunk holds."""
        if self._states.numel():
            self._states.copy_(chunk.tensors()["states"])

    def extend(self, grid: Tensor, layout: ChunkLayout) -> Tensor:
        """Write the new slot, [B, 1, 1, E]; return the chunks [B, 1, S, E] if that fills them."""
        self._states[self._counters.rows, self._counters.slots] = grid[:, 0, 0]
        return self._states.unsqueeze(1) if layout.num_finished_chunks else grid

    def settle(self, chunk: OpenChunk) -> None:
        """Hand back the chunk, zero where there is no token."""
        if not self._states.numel():
            return
        slots = torch.arange(self._states.shape[1], device=self._states.device)
        used = (slots < self._counters.slots[:, None]).unsqueeze(-1)
        chunk.replace({"states": torch.where(used, self._states, 0)})
