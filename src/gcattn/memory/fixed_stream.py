"""A stream whose tensors keep their shapes and places, for one token in each row at a time.

Windows are rings, the open chunk is filled in place, the retrieved chunks are in a buffer: a column
needs no plan and no copy from the host, and can be replayed as a captured graph. A token that
closes a chunk is followed by the landmark, a column like any other; appending the chunk and
choosing others is the host's work. `settle` hands everything back to the cache when rows change
places or the cache is looked at.

A column writes only to unused places, and the counters move last, so a token that fails has changed
nothing. What a landmark changes besides is rolled back.

Shapes: B batch, W window, S slots per chunk, R groups, K retrieved chunks, n taps, G key/value
heads, D head dim, E hidden size.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from gcattn.chunking.landmark_layout import LandmarkLayout
from gcattn.chunking.token_layout import TokenLayout
from gcattn.memory.carried import CarriedState, Snapshot
from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.chunk_source import ChunkSource, EncodedChunks
from gcattn.memory.column_step import ColumnStep
from gcattn.memory.fixed_chunks import FixedChunks, FixedChunkTail, FixedRetrieval
from gcattn.memory.fixed_states import (
    Counters,
    FixedOpenChunk,
    RingColumns,
    RingWindow,
    WindowColumn,
)
from gcattn.memory.host_work import HostWork
from gcattn.memory.last_retrieval import LastRetrieval
from gcattn.memory.stream import Stream

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


# counters, and states of the cache
StreamSnapshot: TypeAlias = tuple[Tensor, list[tuple[CarriedState, Snapshot]]]


class FixedStream(Stream):
    """What a cache holds, in fixed shapes.

    Args:
        config: Of the model.
        stream: A stream that has read something; until `fill` only its shapes are used.
        memory: Its finished chunks.

    Attributes:
        token: The step of a token.
        landmark: The step of the landmark after it, in rows that close a chunk.
        embeds: The tokens' embeddings are copied here, [B, 1, E].
        work: What the host has to do during a step.
        top_k: K.
    """

    remembers = True
    lower_window: RingWindow
    upper_window: RingWindow
    last_columns: RingColumns
    open_chunk: FixedOpenChunk

    def __init__(self, config: "DRTConfig", stream: Stream, memory: ChunkMemory) -> None:
        documents = stream.lower_window.tensors()["documents"]
        device, B = documents.device, documents.shape[0]
        groups, K = config.num_retrieval_groups, _top_k(config, stream)
        self.shapes = fixed_shapes(config, stream, memory)
        dtype = self.shapes[2]
        self.counters = counters = Counters(B, device)
        self._read = Counters(B, torch.device("cpu"))  # of what has been committed
        self._documents = documents.new_zeros(B, 1)
        self.embeds = torch.zeros(B, 1, config.hidden_size, dtype=dtype, device=device)
        positions, chunks = counters.positions[:, None], counters.chunks
        self.token = ColumnStep(TokenLayout(positions, documents.new_zeros(B, 1)))
        self.landmark = ColumnStep(
            LandmarkLayout(positions, documents.new_zeros(B, 1), config.chunk_size, chunks)
        )
        self.work, self.top_k = HostWork(), K
        W, taps = config.window_size, config.embedding_convolution_size
        self.lower_window = RingWindow(stream.lower_window, W, counters)
        self.upper_window = RingWindow(stream.upper_window, W, counters)
        self.last_columns = RingColumns(stream.last_columns, taps - 1, counters)
        self.open_chunk = FixedOpenChunk(stream.open_chunk, counters)
        self.log, self.chunk_tail = stream.log, FixedChunkTail(stream.chunk_tail, self.work)
        # the landmark itself may read what it retrieves
        is_first = config.retrieval_serves == "from_landmark"
        shared = self.landmark.rows, self.work.do if is_first else self.work.do_last
        self._chunks = (
            FixedChunks(memory, stream.log, K * groups, *shared) if memory.is_ready else None
        )
        wide = torch.promote_types(dtype, torch.float32)
        weights = torch.zeros(B, 1, K, dtype=wide, device=device)
        self._retrieved = [
            FixedRetrieval(last, group, weights, self._chunks, *shared)
            for group, last in enumerate(stream.last_retrievals)
        ]
        self.last_retrievals = list[LastRetrieval](self._retrieved)
        # the cache's own, which the host's work extends
        self._kept: list[CarriedState] = [stream.chunk_tail, memory, *stream.last_retrievals]
        self._overwritten: list[WindowColumn] = []
        self._numbers: Tensor | None = None  # of the chunks that the tokens are in, [B, 1]
        self._is_served = False  # the buffer holds what the last landmarks retrieved

    @property
    def chunks(self) -> ChunkSource | None:
        """The chunks that were retrieved."""
        return self._chunks

    def append(self, chunks: EncodedChunks, counts: Tensor) -> ChunkSource:
        """Add the chunks of the rows that close one; return what can be retrieved."""
        assert self._chunks is not None  # a model that makes chunks has a memory for them
        return self._chunks.append(chunks)

    def fill(self, stream: Stream) -> None:
        """Take over what the stream holds, into the same tensors."""
        state = stream.position.state
        assert state is not None
        self.lower_window.fill(stream.lower_window)
        self.upper_window.fill(stream.upper_window)
        self.last_columns.fill(stream.last_columns)
        self.open_chunk.fill(stream.open_chunk)
        self._documents.copy_(state.document[:, None])
        self._read.columns.zero_()
        self._read.positions.copy_(state.next_position)
        self._read.slots.copy_(state.open_length)
        self._read.chunks.copy_(state.num_chunks)
        self.undo()
        self.token.rows.which = self.landmark.rows.which = []
        self._numbers = None
        self._is_served = False

    def settle(self, stream: Stream) -> None:
        """Hand everything back."""
        num_new = self._read.columns.tolist()
        if not any(num_new):
            return
        self.undo()
        state = stream.position.state
        assert state is not None
        self.lower_window.settle(stream.lower_window, num_new)
        self.upper_window.settle(stream.upper_window, num_new)
        self.last_columns.settle(stream.last_columns)
        self.open_chunk.settle(stream.open_chunk)
        read = self._read
        stream.position.move(
            replace(
                state,
                open_length=read.slots.clone(),
                next_position=read.positions.clone(),
                num_chunks=read.chunks.clone(),
            )
        )

    def open_lengths(self) -> list[int]:
        """Return the tokens in each row's open chunk."""
        lengths: list[int] = self._read.slots.tolist()
        return lengths

    def begin_token(self, embeds: Tensor, running: list[bool]) -> None:
        """Put the next tokens in place, [B, 1, E]; `running` rows read theirs."""
        self.embeds.copy_(embeds)
        if running != self.token.rows.which:
            self.token.set(running, self._documents)
            self._numbers = None
        if not self._is_served:
            for retrieved in self._retrieved:
                retrieved.fill(self.counters.rows, self._documents)
            self._is_served = True

    def commit_token(self, input_ids: Tensor | None) -> None:
        """Note that the tokens [B, 1] have been read, into the open chunks."""
        reads = self.token.rows.counts
        if self._numbers is None:
            self._numbers = torch.where(reads > 0, self._read.chunks, -1)[:, None]
        self.log.extend(input_ids, self._numbers)
        self._read.move(reads)

    def begin_landmark(self, closes: list[bool]) -> None:
        """Prepare for the landmarks of rows whose tokens close a chunk."""
        # until these are committed, windows may have to be rolled back by two columns
        self._overwritten = [w.next_column() for w in (self.lower_window, self.upper_window)]
        self.landmark.set(closes, self._documents)

    def commit_landmark(self) -> None:
        """Note that the landmarks have been read."""
        self._read.close(self.landmark.rows.counts)
        self._overwritten, self._numbers = [], None

    def finish(self, step: ColumnStep) -> None:
        """Finish a step; the counters move last."""
        if step is self.landmark:
            self.work.finish()
            self.counters.close(step.rows.reads)
        else:
            self.counters.move(step.rows.reads)

    def snapshot(self, *, closes: bool) -> StreamSnapshot:
        """Return what `roll_back` needs, without copying a tensor that is large.

        Args:
            closes: Landmarks follow.
        """
        states = [self.log, *self._kept] if closes else [self.log]
        return self._read.all.clone(), [(state, state.snapshot()) for state in states]

    def roll_back(self, before: StreamSnapshot) -> None:
        """Return to where `snapshot` was taken, at most a token and its landmark before."""
        read, states = before
        for state, snapshot in states:
            state.roll_back(snapshot)
        if self._overwritten:
            for window, column in zip(
                (self.lower_window, self.upper_window), self._overwritten, strict=True
            ):
                window.put_back(column)
            self._overwritten, self._is_served = [], False
        self._read.all.copy_(read)
        self._numbers = None
        self.undo()

    def undo(self) -> None:
        """Forget a column that was computed and not committed."""
        self.counters.all.copy_(self._read.all, non_blocking=True)


def fixed_shapes(
    config: "DRTConfig", stream: Stream, memory: ChunkMemory
) -> tuple[int, int, torch.dtype, torch.device, bool]:
    """Return what decides the shapes of a `FixedStream`."""
    window = stream.lower_window.tensors()
    like = next((x for name, x in window.items() if name != "documents"), window["documents"])
    rows = window["documents"].shape[0]
    return rows, _top_k(config, stream), like.dtype, like.device, memory.is_ready


def _top_k(config: "DRTConfig", stream: Stream) -> int:
    held = stream.last_retrievals[0].tensors()
    return held["indices"].shape[1] if held else config.retrieval_top_k
