"""A stream whose tensors keep their shapes and places while tokens close no chunk.

Windows are rings, the open chunk is filled in place, the retrieved chunks lie in a buffer: a token
needs no plan and no copy from the host, and can be replayed as a captured graph. A token writes
only where nothing is held, and the counters move last: a call that fails in between has changed
nothing. `settle` hands everything back to the cache, where a chunk is closed, rows change places
or somebody looks.

Shapes: B batch, W window, S slots per chunk, R groups, K retrieved chunks, n taps, G key/value
heads, D head dim, E hidden size.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from gcattn.chunking.token_layout import TokenLayout
from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.chunk_source import ChunkSource
from gcattn.memory.fixed_states import (
    Counters,
    FixedChunks,
    FixedOpenChunk,
    FixedRetrieval,
    RingColumns,
    RingWindow,
)
from gcattn.memory.last_retrieval import LastRetrieval
from gcattn.memory.stream import Stream

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class Captured(Protocol):
    """A computation on the tensors of a fixed stream that can be replayed."""

    def replay(self, model: nn.Module) -> Tensor | None:
        """Compute a token, hidden states [B, 1, E]; None if the model would compute another."""


class FixedStream(Stream):
    """What a remembering stream holds, in fixed shapes.

    Args:
        config: Of the model.
        stream: Has read something; only its shapes are taken before `fill`.
        memory: Its finished chunks.

    Attributes:
        layout: Of every token.
        embeds: Where the tokens' embeddings are put, [B, 1, E].
        advanced: Tokens of each row that the cache has not been told of.
        captured: The token's computation, for whoever captures it.
        num_computed: Tokens since it could have been captured.
    """

    remembers = True
    lower_window: RingWindow
    upper_window: RingWindow
    last_columns: RingColumns
    open_chunk: FixedOpenChunk

    def __init__(self, config: "DRTConfig", stream: Stream, memory: ChunkMemory) -> None:
        documents = stream.lower_window.tensors()["documents"]
        device, B = documents.device, documents.shape[0]
        groups, K = range(config.num_retrieval_groups), _top_k(config, stream)
        self.shapes = fixed_shapes(config, stream, memory)
        self.counters = counters = Counters(B, device)
        self._documents = documents.new_zeros(B, 1)
        dtype = self.shapes[2]
        self.embeds = torch.zeros(B, 1, config.hidden_size, dtype=dtype, device=device)
        self.layout = TokenLayout(counters.positions[:, None], documents.new_zeros(B, 1))
        self.advanced = [0] * B
        self._open_lengths = self.advanced  # when the stream was filled
        self._chunk_numbers = self._numbers = torch.zeros(B, 1, dtype=torch.long)
        self.captured: Captured | None = None
        self.num_computed = 0
        self.log, self.position, self.chunk_tail = stream.log, stream.position, stream.chunk_tail
        W, taps = config.window_size, config.embedding_convolution_size
        self.lower_window = RingWindow(stream.lower_window, W, counters)
        self.upper_window = RingWindow(stream.upper_window, W, counters)
        self.last_columns = RingColumns(stream.last_columns, taps - 1, counters)
        self.open_chunk = FixedOpenChunk(stream.open_chunk, counters)
        self.retrieved = [FixedRetrieval((B, K), dtype, device) for _ in groups]
        self.last_retrievals = list[LastRetrieval](self.retrieved)
        self._chunks = FixedChunks(memory, K * len(groups)) if memory.is_ready else None
        self._running = [True] * B

    @property
    def chunks(self) -> ChunkSource | None:
        """The chunks that were retrieved."""
        return self._chunks

    def fill(self, stream: Stream, memory: ChunkMemory) -> None:
        """Take over what the stream holds, into the same tensors."""
        state = stream.position.state
        assert state is not None
        self.lower_window.fill(stream.lower_window)
        self.upper_window.fill(stream.upper_window)
        self.last_columns.fill(stream.last_columns)
        self.open_chunk.fill(stream.open_chunk)
        self._documents.copy_(state.document[:, None])
        for group, (held, fixed) in enumerate(
            zip(stream.last_retrievals, self.retrieved, strict=True)
        ):
            self._fill_group(memory, group, held.tensors(), fixed)
        self._base = torch.stack([torch.zeros_like(state.open_length), state.open_length])
        self._base = torch.cat([self._base, state.next_position[None]])
        self._open_lengths = state.open_length.tolist()
        self._chunk_numbers = state.num_chunks[:, None]
        self.advanced = [0] * len(self._open_lengths)
        self.undo()
        self._running = []

    def _fill_group(
        self, memory: ChunkMemory, group: int, held: dict[str, Tensor], fixed: FixedRetrieval
    ) -> None:
        indices, weights = fixed.served
        indices.fill_(-1)
        if self._chunks is None or not held:
            return
        if memory.num_shared + memory.documents.shape[1] == 0:
            return
        # what another document's landmark retrieved serves nobody
        serves = (held["documents"][:, None] == self._documents) & (held["indices"] >= 0)  # [B, K]
        wanted = torch.where(serves, held["indices"], -1)[:, None]
        got = memory.fetch(wanted, held["weights"][:, None])
        rows = self.counters.rows[:, None]
        places = got.indices[:, 0].clamp_min(0)  # [B, K]
        K = places.shape[1]
        here = slice(group * K, (group + 1) * K)
        if got.keys.shape[1]:
            self._chunks.keys[:, here] = got.keys[rows, places]
            self._chunks.values[:, here] = got.values[rows, places]
            self._chunks.lengths[:, here] = got.lengths[rows, places]
        order = torch.arange(here.start, here.stop, device=indices.device)
        indices.copy_(torch.where(serves, order, -1)[:, None])
        weights.copy_(torch.where(serves, held["weights"], 0)[:, None])

    def settle(self, stream: Stream) -> None:
        """Hand everything back."""
        if not any(self.advanced):
            return
        self.undo()
        state = stream.position.state
        assert state is not None
        self.lower_window.settle(stream.lower_window, self.advanced)
        self.upper_window.settle(stream.upper_window, self.advanced)
        self.last_columns.settle(stream.last_columns)
        self.open_chunk.settle(stream.open_chunk)
        new = torch.tensor(self.advanced)
        length, position = state.open_length + new, state.next_position + new
        stream.position.move(replace(state, open_length=length, next_position=position))
        self.advanced = [0] * len(self.advanced)

    def open_lengths(self) -> list[int]:
        """Return the tokens in each row's open chunk."""
        return [a + b for a, b in zip(self._open_lengths, self.advanced, strict=True)]

    def begin(self, embeds: Tensor, running: list[bool]) -> None:
        """Put the next tokens in place, [B, 1, E]; `running` rows read theirs."""
        self.embeds.copy_(embeds)
        if running != self._running:
            self._running = running
            reads = torch.tensor(running)[:, None]
            self._numbers = torch.where(reads, self._chunk_numbers, -1)
            reads = reads.to(embeds.device)
            self.counters.step.copy_(reads[:, 0])
            self.layout.documents.copy_(torch.where(reads, self._documents, -1))

    def commit(self, input_ids: Tensor | None) -> None:
        """Note that the tokens [B, 1] have been read."""
        self.log.extend(input_ids, self._numbers)
        self.advanced = [n + runs for n, runs in zip(self.advanced, self._running, strict=True)]

    def go_back(self, advanced: list[int]) -> None:
        """Return to where rows had read `advanced` tokens, and forget one that failed."""
        self.advanced = advanced
        self.undo()

    def undo(self) -> None:
        """Forget a token that was computed and not committed."""
        self.counters.all.copy_(self._base + torch.tensor(self.advanced))


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
