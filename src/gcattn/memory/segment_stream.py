"""A stream for whole segments of a prompt that are alike, in tensors that stay in place.

The ordinary states extend it, on copies of what the cache holds, so that one computation serves
every segment of the same shape, in any stream of a model. What depends on the number of chunks is
the host's work: see `segment_chunks.py`.

Shapes: B batch, T tokens, K retrieved chunks, E hidden size.
"""

from collections.abc import Hashable

import torch
from torch import Tensor

from gcattn.chunking import ChunkState
from gcattn.memory.cache import DRTCache
from gcattn.memory.carried import CarriedState
from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.chunk_source import ChunkSource, EncodedChunks
from gcattn.memory.host_work import HostWork
from gcattn.memory.last_retrieval import LastRetrieval
from gcattn.memory.packed import PackedTensors
from gcattn.memory.position import Position
from gcattn.memory.segment_chunks import SegmentChunks, SegmentRetrieval
from gcattn.memory.stream import Stream
from gcattn.memory.token_log import TokenLog
from gcattn.memory.window import WindowCache

# states of the cache that the host extends
_OF_THE_HOST = (TokenLog, Position, LastRetrieval, ChunkMemory)


class SegmentStream(Stream):
    """What segments of one shape run on; no value in it is needed after a segment.

    Args:
        cache: The first one that is read with; all that follow have states of the same shapes.
        embeds: Like the embeddings of a segment, [B, T, E].
        top_k: Of the retrieval.

    Attributes:
        embeds: The tokens' embeddings are copied here, [B, T, E].
        moved_by: Chunks and columns before the segment, [2, B].
        work: What the host has to do during a segment.
    """

    remembers = True

    def __init__(self, cache: DRTCache, embeds: Tensor, top_k: int) -> None:
        super().__init__(cache.config)
        self.work = HostWork()
        self.embeds = torch.zeros_like(embeds)
        self.moved_by = torch.zeros(2, len(embeds), dtype=torch.long, device=embeds.device)
        self._before, self._after = PackedTensors.of(_held(cache)), PackedTensors.of({})
        self._chunks = SegmentChunks(cache.memory.num_shared, _width(cache, top_k), self.work)
        self.last_retrievals = [
            SegmentRetrieval(group, self._chunks) for group in range(len(cache.last_retrievals))
        ]

    def append(self, chunks: EncodedChunks, counts: Tensor) -> ChunkSource:
        """Let the host add the chunks; return what can be retrieved."""
        return self._chunks.append(chunks, counts)

    def fill(self, cache: DRTCache, embeds: Tensor, state: ChunkState) -> None:
        """Take over what the cache holds, and the next tokens' embeddings [B, T, E]."""
        self._before.copy_(_held(cache))
        # a copy that blocks would wait for all that the device still computes
        self.moved_by.copy_(torch.stack([state.num_chunks, state.next_position]), non_blocking=True)
        self.embeds.copy_(embeds)
        self._chunks.cache = cache

    def begin(self) -> None:
        """Begin a computation with what was taken over."""
        _replace(self, self._before)

    def finish(self) -> None:
        """End a computation: what the next segment needs is left in place."""
        self._after = PackedTensors.of(_held(self))

    def settle(self, cache: DRTCache) -> None:
        """Hand everything back."""
        _replace(cache, self._after.clone())

    def let_go(self) -> None:
        """Refer to no cache any more."""
        self._chunks.cache = None


def segment_shapes(cache: DRTCache, top_k: int) -> Hashable:
    """Return what decides the shapes of a `SegmentStream` besides the tokens."""
    held = tuple((name, x.shape, x.dtype) for name, x in _held(cache).items())
    return held, _width(cache, top_k), cache.memory.num_shared


def _width(cache: DRTCache, top_k: int) -> int:
    """Return K of what blocks read: calls of a stream may differ in it."""
    held = [last.tensors() for last in cache.last_retrievals]
    return max([top_k, *(x["indices"].shape[-1] for x in held if x)])


def _states(stream: Stream) -> dict[str, CarriedState]:
    """Return the states that a segment extends on the device, by name."""
    states = stream.states().items()
    return {name: state for name, state in states if not isinstance(state, _OF_THE_HOST)}


def _held(stream: Stream) -> dict[str, Tensor]:
    """Return the tensors of these states by "state:name", in an order of their own."""
    return {
        f"{name}:{part}": x
        for name, state in _states(stream).items()
        for part, x in sorted(state.tensors().items())
    }


def _replace(stream: Stream, held: PackedTensors) -> None:
    states = _states(stream)
    by_state: dict[str, dict[str, Tensor]] = {name: {} for name in states}
    for path, x in held.tensors.items():
        name, part = path.split(":")
        by_state[name][part] = x
    for name, tensors in by_state.items():
        state = states[name]
        if isinstance(state, WindowCache):
            state.replace(tensors, all_used=True)
        else:
            state.replace(tensors)
