"""Carried states whose tensors keep their shapes and places, for tokens that close no chunk.

Each takes over what the state of its kind holds (`fill`), is extended by one column at a time, and
hands back what it holds (`settle`). It writes only where nothing is held: until the counters move,
nothing has changed.

Shapes: B batch, W window, S slots per chunk, R groups, K retrieved chunks, n taps, G key/value
heads, D head dim, E hidden size.
"""

import torch
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.chunk_source import Choice, RetrievedChunks, select_by_scan
from gcattn.memory.column_tail import ColumnTail
from gcattn.memory.last_retrieval import LastRetrieval
from gcattn.memory.open_chunk import OpenChunk
from gcattn.memory.window import WindowCache
from gcattn.ops.chunk_topk import ChunkSelection
from gcattn.ops.pointwise import write_columns


class Counters:
    """What moves with every token, on the device.

    Attributes:
        columns: Columns since the stream was filled, [B].
        slots: Tokens in the open chunk, [B].
        positions: Of the next column in its document, [B].
        step: 1 for rows that read a token, else 0, [B].
    """

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.all = torch.zeros(3, num_rows, dtype=torch.long, device=device)
        self.step = torch.ones_like(self.all[0])
        self.rows = torch.arange(num_rows, device=device)
        self.columns, self.slots, self.positions = self.all

    def move(self) -> None:
        """Move on by one token."""
        self.all += self.step


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
        self._all = like.new_zeros(len(held), rows, window_size, *like.shape[2:])
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
        """Register the column of this token."""
        assert self.key_documents is not None and layout.documents is not None
        self._at = (self._counters.columns + self._start) % self._window_size
        self.key_documents[self._counters.rows, self._at] = layout.documents[:, 0]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new column, [B, 1, G, D]; return all, [B, W, G, D]."""
        rings = self._rings[f"keys.{layer}"], self._rings[f"values.{layer}"]
        write_columns(rings, (keys, values), self._at)
        return rings

    def settle(self, window: WindowCache, num_new: list[int]) -> None:
        """Hand back the last columns in their order.

        Args:
            window: The cache's.
            num_new: Tokens that each row has read.
        """
        assert self.key_documents is not None
        past = window.tensors()["documents"].shape[1]
        kept = min(self._window_size - 1, past + max(num_new))
        order = torch.arange(kept, device=self._start.device) - kept
        ends = (self._counters.columns + self._start)[:, None]
        place = (ends + order) % self._window_size  # [B, kept]
        rows = self._counters.rows[:, None]
        # rows that read fewer tokens reach back to places that nothing was written into
        tensors = dict(zip(self._rings, self._all[:, rows, place], strict=True))
        tensors["documents"] = self.key_documents[rows, place]
        window.replace(tensors, all_used=window.is_all_used and min(num_new) == max(num_new))


class RingColumns(ColumnTail):
    """The last n columns before the convolution, [B, n, E]."""

    def __init__(self, tail: ColumnTail, num_columns: int, counters: Counters) -> None:
        super().__init__(num_columns)
        self._counters = counters
        self._order = torch.arange(num_columns + 1, device=counters.rows.device)
        self._ring = torch.zeros(0)
        if "states" in tail.tensors():  # else the model has no convolution
            states = tail.tensors()["states"]
            self._ring = states.new_zeros(states.shape[0], num_columns + 1, states.shape[2])

    def fill(self, tail: ColumnTail) -> None:
        """Take over what a column tail holds."""
        if self._ring.numel():
            self._ring[:, :-1] = tail.tensors()["states"]

    def extend(self, columns: Tensor, layout: ChunkLayout) -> Tensor:
        """Write the new column, [B, 1, E]; return the last n in their order, [B, n, E]."""
        taps, rows = len(self._order), self._counters.rows
        self._ring[rows, (self._counters.columns - 1) % taps] = columns[:, 0]
        return self._ring[rows[:, None], self._places()]

    def settle(self, tail: ColumnTail) -> None:
        """Hand back the last n - 1 columns."""
        if not self._ring.numel():
            return
        places = self._places()[:, :-1]
        tail.replace({"states": self._ring[self._counters.rows[:, None], places]})

    def _places(self) -> Tensor:
        return (self._counters.columns[:, None] + self._order) % len(self._order)


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
        """Write the new slot, [B, 1, 1, E]."""
        self._states[self._counters.rows, self._counters.slots] = grid[:, 0, 0]
        return grid

    def settle(self, chunk: OpenChunk) -> None:
        """Hand back the chunk, zero where there is no token."""
        if not self._states.numel():
            return
        slots = torch.arange(self._states.shape[1], device=self._states.device)
        used = (slots < self._counters.slots[:, None]).unsqueeze(-1)
        chunk.replace({"states": torch.where(used, self._states, 0)})


class FixedRetrieval(LastRetrieval):
    """Which chunks of the buffer serve the token: indices and weights [B, 1, K]."""

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        B, top_k = shape
        indices = torch.full((B, 1, top_k), -1, device=device)
        wide = torch.promote_types(dtype, torch.float32)
        self.served = ChunkSelection(indices, torch.zeros_like(indices, dtype=wide))

    def extend(
        self, selection: ChunkSelection, layout: ChunkLayout, num_blocks: int
    ) -> ChunkSelection:
        """Return what serves the token."""
        return self.served


class FixedChunks:
    """The retrieved chunks of all groups in one buffer, [B, R · K, S, G, D]."""

    def __init__(self, memory: ChunkMemory, num_chunks: int) -> None:
        nothing = torch.zeros_like(memory.documents[:, None, :0])  # [B, 1, 0]
        pool = memory.fetch(nothing, nothing).keys
        self.keys = pool.new_zeros(pool.shape[0], num_chunks, *pool.shape[2:])
        self.values = torch.zeros_like(self.keys)
        self.lengths = torch.zeros(self.keys.shape[:2], dtype=torch.long, device=pool.device)
        self._landmarks = memory.landmarks[:, :0].clone()
        self._documents = self.lengths[:, :0]

    @property
    def num_shared(self) -> int:
        """None: each row has its own."""
        return 0

    def select(self, queries: Tensor, num_visible: Tensor, choice: Choice) -> ChunkSelection:
        """Choose nothing: nobody asks, there are no queries [B, 0, E]."""
        return select_by_scan(queries, self._landmarks, self._documents, num_visible, choice)

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Read in place."""
        return RetrievedChunks(self.keys, self.values, self.lengths, indices, weights)
