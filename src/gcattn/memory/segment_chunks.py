"""Finished chunks in a captured segment: those that its blocks read, in one buffer.

The number of chunks changes from segment to segment, so adding and choosing them is the host's
work, done by the cache's own memory and last retrievals between two graphs. Its results are copied
into tensors that stay in place.

Shapes: B batch, C blocks, F finished chunks, K retrieved chunks, S slots per chunk, G key/value
heads, D head dim, E hidden size.
"""

from collections.abc import Callable
from functools import partial
from typing import Self

import torch
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.cache import DRTCache
from gcattn.memory.chunk_source import Choice, EncodedChunks, RetrievedChunks
from gcattn.memory.host_work import HostWork
from gcattn.memory.last_retrieval import LastRetrieval
from gcattn.ops.chunk_topk import ChunkSelection


class SegmentChunks:
    """What the blocks of a segment read, [B, C · K, S, G, D]; one group after the other.

    Args:
        num_shared: Number of shared chunks, which all rows see.
        top_k: K.
        work: The host's.

    Attributes:
        cache: Whose memory the host extends; None between two segments.
    """

    def __init__(self, num_shared: int, top_k: int, work: HostWork) -> None:
        self.num_shared = num_shared
        self.cache: DRTCache | None = None
        self._top_k, self._work = top_k, work
        self._like: EncodedChunks | None = None
        self._buffer: RetrievedChunks | None = None
        self._places = torch.zeros(0, 0, 0)  # in the buffer, of each block's chunks, [B, C, K]
        self._question: Callable[[DRTCache], ChunkSelection] | None = None

    def append(self, chunks: EncodedChunks, counts: Tensor) -> Self:
        """Let the host add the first `counts` [B] chunks of each row."""
        self._like = chunks
        self._work.do(partial(self._append, chunks, counts))
        return self

    def _append(self, chunks: EncodedChunks, counts: Tensor) -> None:
        assert self.cache is not None  # it is set while a segment is read
        self.cache.append(chunks, counts)

    def select(self, queries: Tensor, num_visible: Tensor, choice: Choice) -> ChunkSelection:
        """Choose nothing yet: the queries of landmarks [B, F, E] are kept for `serve`."""

        def choose(cache: DRTCache) -> ChunkSelection:
            return cache.memory.select(queries, num_visible, choice)

        self._question = choose
        return ChunkSelection(num_visible[..., None][..., :0], queries[..., :0])

    def serve(self, group: int, layout: ChunkLayout, num_blocks: int) -> ChunkSelection:
        """Let the host answer a group's question; returns what its blocks read, [B, C, K]."""
        question, self._question = self._question, None
        assert question is not None  # `select` comes first in every group
        buffer = self._room(num_blocks)
        self._work.do(partial(self._answer, question, group, layout, buffer))
        assert buffer.indices is not None
        return ChunkSelection(buffer.indices, buffer.weights)

    def fetch(self, indices: Tensor, weights: Tensor) -> RetrievedChunks:
        """Read in place."""
        assert self._buffer is not None  # `serve` made it
        return self._buffer._replace(indices=indices, weights=weights)

    def _room(self, num_blocks: int) -> RetrievedChunks:
        """Return the buffer; all groups use the same one, as each has been read before the next."""
        if self._buffer is None:
            assert self._like is not None  # `append` comes first
            like, K = self._like.keys, self._top_k
            B, (*sizes,) = len(like), like.shape[2:]
            wide = torch.promote_types(like.dtype, torch.float32)
            self._buffer = RetrievedChunks(
                like.new_zeros(B, num_blocks * K, *sizes),
                like.new_zeros(B, num_blocks * K, *sizes),
                self._like.lengths.new_zeros(B, num_blocks * K),
                torch.full((B, num_blocks, K), -1, device=like.device),
                like.new_zeros(B, num_blocks, K, dtype=wide),
            )
            places = torch.arange(num_blocks * K, device=like.device)
            self._places = places.view(num_blocks, K).expand(B, -1, -1)
        return self._buffer

    def _answer(
        self,
        question: Callable[[DRTCache], ChunkSelection],
        group: int,
        layout: ChunkLayout,
        buffer: RetrievedChunks,
    ) -> None:
        assert self.cache is not None and buffer.indices is not None
        last, memory = self.cache.last_retrievals[group], self.cache.memory
        num_blocks = buffer.indices.shape[1]
        got = last.fetch(memory, last.extend(question(self.cache), layout, num_blocks))
        assert got.indices is not None  # a memory says where it put them
        if got.keys.shape[1]:
            # all rows read the same pool; an empty slot brings any chunk, which nobody reads
            place = got.indices.clamp_min(0).flatten()
            for held, pool in zip(buffer[:3], got[:3], strict=True):
                torch.index_select(pool[0], 0, place, out=held.flatten(0, 1))
        torch.where(got.indices >= 0, self._places, got.indices, out=buffer.indices)
        buffer.weights.copy_(got.weights)


class SegmentRetrieval(LastRetrieval):
    """What a group's blocks read; the cache's own state keeps what its last landmarks retrieved.

    Args:
        group: Its number.
        chunks: The buffer.
    """

    def __init__(self, group: int, chunks: SegmentChunks) -> None:
        super().__init__()
        self._group, self._chunks = group, chunks

    def extend(
        self, selection: ChunkSelection, layout: ChunkLayout, num_blocks: int
    ) -> ChunkSelection:
        """Return what each block reads, once the host has answered."""
        return self._chunks.serve(self._group, layout, num_blocks)
