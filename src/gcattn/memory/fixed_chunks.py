"""Finished chunks in a stream of fixed shapes: those that are read, in one buffer.

A landmark adds a chunk to the cache's memory and retrieves others. Their number changes, so both
are the host's work, done by the cache's own states, and the results are copied into tensors that
stay in place.

Shapes: B batch, F = 1 finished chunk, S slots per chunk, R groups, K retrieved chunks, n tokens of
a chunk's end, G key/value heads, D head dim, E hidden size.
"""

from collections.abc import Callable
from functools import partial
from typing import Self

import torch
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.chunk_source import (
    Choice,
    ChunkSource,
    EncodedChunks,
    RetrievedChunks,
    select_by_scan,
)
from gcattn.memory.chunk_tail import ChunkEnds, ChunkTail
from gcattn.memory.column_step import ColumnRows
from gcattn.memory.host_work import HostWork, Work
from gcattn.memory.last_retrieval import LastRetrieval
from gcattn.memory.token_log import TokenLog
from gcattn.ops.chunk_topk import ChunkSelection
from gcattn.ops.native import has_kernels


class FixedChunks:
    """The retrieved chunks of all groups in one buffer, [B, R · K, S, G, D].

    Args:
        memory: All finished chunks.
        log: Of the tokens.
        num_chunks: R · K.
        closing: The rows whose chunks a step adds.
        when: Called with the work of appending them.
    """

    def __init__(
        self,
        memory: ChunkMemory,
        log: TokenLog,
        num_chunks: int,
        closing: ColumnRows,
        when: Callable[[Work], None],
    ) -> None:
        self.memory, self._log, self._closing, self._when = memory, log, closing, when
        nothing = torch.zeros_like(memory.documents[:, None, :0])  # [B, 1, 0]
        pool = memory.fetch(nothing, nothing).keys
        self.keys, self.values = (
            _buffer(pool, pool.shape[0], num_chunks, *pool.shape[2:]) for _ in range(2)
        )
        self.lengths = torch.zeros(self.keys.shape[:2], dtype=torch.long, device=pool.device)
        self._landmarks = memory.landmarks[:, :0].clone()
        self._question: Callable[[], ChunkSelection] | None = None

    @property
    def num_shared(self) -> int:
        """Number of shared chunks, which all rows see."""
        return self.memory.num_shared

    def append(self, chunks: EncodedChunks) -> Self:
        """Add the chunks of the rows that close one; returns what can be retrieved."""
        self._when(partial(self._append, chunks))
        return self

    def _append(self, chunks: EncodedChunks) -> None:
        self.memory.append_logged(chunks, self._closing.counts, self._log)

    def select(self, queries: Tensor, num_visible: Tensor, choice: Choice) -> ChunkSelection:
        """Choose nothing yet: the queries of landmarks [B, F, E] are kept for `take_question`."""
        if queries.shape[1]:
            self._question = partial(self.memory.select, queries, num_visible, choice)
        nobody = self.lengths[:, :0]
        documents = None if choice.documents is None else nobody
        nothing = Choice(choice.top_k, documents)
        return select_by_scan(queries[:, :0], self._landmarks, documents, nobody, nothing)

    def take_question(self) -> Callable[[], ChunkSelection]:
        """Return the function that chooses for the last landmarks, [B, F, K]."""
        question, self._question = self._question, None
        assert question is not None  # `select` comes first in every group
        return question

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Read in place."""
        return RetrievedChunks(self.keys, self.values, self.lengths, indices, weights)


def _buffer(like: Tensor, *shape: int) -> Tensor:
    """Return chunks [B, R · K, S, G, D], in the layout that single queries read fastest."""
    if not like.is_cpu:
        return like.new_zeros(shape)
    B, num_chunks, S, *heads = shape
    if has_kernels(B, like.dtype):
        return like.new_zeros(B, heads[0], num_chunks, S, heads[1]).permute(0, 2, 3, 1, 4)
    wide = torch.promote_types(like.dtype, torch.float32)
    return like.new_zeros(B, *heads, num_chunks, S, dtype=wide).permute(0, 3, 4, 1, 2)


class FixedRetrieval(LastRetrieval):
    """Which chunks of the buffer a group's column reads: indices and weights [B, 1, K].

    Args:
        last: Keeps what the group's last landmarks retrieved.
        group: Number of the group, which decides where its chunks are in the buffer.
        weights: Like the weights, [B, 1, K].
        chunks: The buffer; None: the model retrieves nothing.
        closing: The rows whose landmarks retrieve.
        when: Called with the work of retrieving.
    """

    def __init__(
        self,
        last: LastRetrieval,
        group: int,
        weights: Tensor,
        chunks: FixedChunks | None,
        closing: ColumnRows,
        when: Callable[[Work], None],
    ) -> None:
        super().__init__()
        self._last, self._chunks = last, chunks
        K = weights.shape[-1]
        self._slots = slice(group * K, (group + 1) * K)
        self._places = torch.arange(group * K, (group + 1) * K, device=weights.device)
        self._closing, self._when = closing, when
        indices = torch.full_like(weights, -1, dtype=torch.long)
        self._served = ChunkSelection(indices, torch.zeros_like(weights))

    def extend(
        self, selection: ChunkSelection, layout: ChunkLayout, num_blocks: int
    ) -> ChunkSelection:
        """Return what the column reads; a landmark retrieves anew."""
        if layout.num_finished_chunks:
            assert self._chunks is not None  # landmarks have asked it
            self._when(partial(self._answer, self._chunks.take_question(), layout))
        return self._served

    def fetch(self, memory: ChunkSource, served: ChunkSelection) -> RetrievedChunks:
        """Read in place; a CPU reads the group's chunks where they are."""
        chunks = self._chunks
        if chunks is None or not chunks.keys.is_cpu:
            return super().fetch(memory, served)
        keys, values = chunks.keys[:, self._slots], chunks.values[:, self._slots]
        return RetrievedChunks(keys, values, chunks.lengths[:, self._slots], None, served.weights)

    def _answer(self, question: Callable[[], ChunkSelection], layout: ChunkLayout) -> None:
        self._last.keep(question(), layout)
        # the landmark's document is its row's
        self.fill(self._closing.numbers, layout.documents)

    def fill(self, rows: Tensor, documents: Tensor | None) -> None:
        """Bring what the last landmarks of some rows [n] retrieved into the buffer.

        Args:
            rows: Which.
            documents: Of these rows at least, [B, 1].
        """
        held = self._last.tensors()
        indices, weights = self._served
        indices.index_fill_(0, rows, -1)
        weights.index_fill_(0, rows, 0)
        if self._chunks is None or not held:
            return
        memory = self._chunks.memory
        if memory.num_shared + memory.documents.shape[1] == 0:
            return
        # no row reads what a landmark of another document retrieved
        serves = (held["documents"][:, None] == documents) & (held["indices"] >= 0)  # [B, K]
        serves = serves[rows]
        wanted = torch.full_like(indices, -1)
        wanted[rows, 0] = torch.where(serves, held["indices"][rows], -1)
        got = memory.fetch(wanted, held["weights"][:, None])
        assert got.indices is not None  # a memory says where it put them
        row, place = rows[:, None], got.indices[rows, 0].clamp_min(0)  # [n, K]
        if got.keys.shape[1]:
            keys, values = self._chunks.keys, self._chunks.values
            keys[row, self._places] = got.keys[row, place].to(keys.dtype)
            values[row, self._places] = got.values[row, place].to(values.dtype)
            self._chunks.lengths[row, self._places] = got.lengths[row, place]
        indices[rows, 0] = torch.where(serves, self._places, -1)
        weights[rows, 0] = torch.where(serves, held["weights"][rows], 0)


class FixedChunkTail(ChunkTail):
    """The end of each row's last chunk, which the cache's own state keeps.

    Args:
        tail: The state of the cache.
        work: The host's work.
    """

    def __init__(self, tail: ChunkTail, work: HostWork) -> None:
        super().__init__()
        self._tail, self._work = tail, work
        self._previous: ChunkEnds | None = None  # where it is put

    def extend(
        self, ends: ChunkEnds, documents: Tensor | None, *, is_even: bool = False
    ) -> ChunkEnds:
        """Return the end of the chunk before each row's new one; empty where there is none."""
        assert not is_even  # only some rows may have one
        if self._previous is None:
            with torch.inference_mode(False):  # so that later calls can write in any mode
                self._previous = ChunkEnds(*(torch.zeros_like(x) for x in ends))
        self._work.do(partial(self._extend, ends, documents))
        return self._previous

    def _extend(self, ends: ChunkEnds, documents: Tensor | None) -> None:
        assert self._previous is not None  # extend made it
        for held, x in zip(self._previous, self._tail.extend(ends, documents), strict=True):
            held.copy_(x)
