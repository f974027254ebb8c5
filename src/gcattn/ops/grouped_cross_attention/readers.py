"""Who reads each chunk: the inverted index that the gradients of keys and values go through.

A pair (c, k) says that chunk c has pool chunk n in slot k. The backward pass gives every pool
chunk a program that walks its pairs in order, so nothing is added atomically and the result is the
same in every run. A chunk that is read by many is cut into segments, each with a partial sum of its
own, so that one popular chunk does not keep the whole GPU waiting; a chunk that nobody reads gets
one empty segment, which writes its zeros.

Letters: B batch, N chunks in the pool, P = C · K pairs of a row.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout

# pairs per segment: the longest, halved as long as the partial sums fit the room there is
LONGEST_SEGMENT, HALVINGS = 96, 3
SHORTEST_SEGMENT = LONGEST_SEGMENT >> HALVINGS
_BLOCK_N, _BLOCK_P = 2, 1024


class ReadersPlan(NamedTuple):
    """How the pairs are indexed. For each row of the batch, integers in one piece:

    pairs [P], c · K + k, grouped by chunk · counts [N], the readers of each chunk · segments
    [num_segments, 4]: chunk (-1: none), first pair, end, partial sum (-1: none) · partials [N, 2]:
    first partial sum of the chunk and how many, 0 if there are none
    """

    run: Callable[[Tensor], Tensor]  # chunk_indices [B, C, K], contiguous, to index [B, row_size]
    num_segments: int
    num_partials: int  # room for partial sums
    row_size: int


@triton.jit
def segments_of(index_ptr, b, N, P, row_size):
    """Where the segments of a row begin."""
    return index_ptr + b * row_size + P + N


@triton.jit
def partials_of(index_ptr, b, N, P, num_segments, row_size):
    """Where the partial sums of a row are listed."""
    return segments_of(index_ptr, b, N, P, row_size) + num_segments * 4


@triton.jit
def _count_kernel(
    indices_ptr, index_ptr, N, P, row_size, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr
):
    """One program counts the readers of a few chunks of one row."""
    b = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    count = tl.zeros([BLOCK_N], tl.int32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        chosen = tl.load(indices_ptr + b * P + p, mask=p < P, other=-1).to(tl.int32)
        count += tl.sum((chosen[None, :] == n[:, None]).to(tl.int32), 1)
    tl.store(index_ptr + b * row_size + P + n, count, mask=n < N)


@triton.jit
def _num_segments(count, length):
    return (count + length - 1) // length


@triton.jit
def _segment_length(
    counts_ptr, N, room, LONGEST: tl.constexpr, HALVINGS: tl.constexpr, BLOCK: tl.constexpr
):
    """The shortest segment length whose partial sums fit; the longest always does."""
    chosen = tl.full([], LONGEST, tl.int32)
    for i in tl.static_range(1, HALVINGS + 1):
        needed = tl.full([], 0, tl.int32)
        for start in range(0, N, BLOCK):
            n = start + tl.arange(0, BLOCK)
            segments = _num_segments(tl.load(counts_ptr + n, mask=n < N, other=0), LONGEST >> i)
            needed += tl.sum(tl.where(segments > 1, segments, 0), 0)
        chosen = tl.where(needed <= room, LONGEST >> i, chosen)
    return chosen


@triton.jit
def _place_kernel(
    indices_ptr,
    index_ptr,
    N,
    P,
    num_segments,
    room,
    row_size,
    LONGEST: tl.constexpr,
    HALVINGS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One program writes the pairs and segments of a few chunks of one row."""
    b = tl.program_id(1).to(tl.int64)
    pairs_ptr = index_ptr + b * row_size
    counts_ptr = pairs_ptr + P
    segments_ptr = segments_of(index_ptr, b, N, P, row_size)
    partials_ptr = partials_of(index_ptr, b, N, P, num_segments, row_size)
    length = _segment_length(counts_ptr, N, room, LONGEST, HALVINGS, BLOCK_P)

    first_n = tl.program_id(0) * BLOCK_N
    n = first_n + tl.arange(0, BLOCK_N)
    first_pair = tl.full([], 0, tl.int32)
    first_segment = tl.full([], 0, tl.int32)
    first_partial = tl.full([], 0, tl.int32)
    for start in range(0, first_n, BLOCK_P):
        earlier = start + tl.arange(0, BLOCK_P)
        readers = tl.load(counts_ptr + earlier, mask=earlier < first_n, other=0)
        before = _num_segments(readers, length)
        first_pair += tl.sum(readers, 0)
        first_segment += tl.sum(tl.where(earlier < first_n, tl.maximum(before, 1), 0), 0)
        first_partial += tl.sum(tl.where(before > 1, before, 0), 0)

    count = tl.load(counts_ptr + n, mask=n < N, other=0)
    segments = tl.where(n < N, tl.maximum(_num_segments(count, length), 1), 0)
    partials = tl.where(segments > 1, segments, 0)
    pair = first_pair + tl.cumsum(count, 0) - count
    segment = first_segment + tl.cumsum(segments, 0) - segments
    partial = first_partial + tl.cumsum(partials, 0) - partials
    tl.store(partials_ptr + n * 2, partial, mask=n < N)
    tl.store(partials_ptr + n * 2 + 1, partials, mask=n < N)
    for i in range(0, tl.max(segments, 0)):
        at = segments_ptr + (segment + i) * 4
        inside = i < segments
        tl.store(at, n, mask=inside)
        tl.store(at + 1, pair + i * length, mask=inside)
        tl.store(at + 2, pair + tl.minimum((i + 1) * length, count), mask=inside)
        tl.store(at + 3, tl.where(partials > 0, partial + i, -1), mask=inside)
    if first_n + BLOCK_N >= N:  # after the last chunk's segments there is nothing to do
        for start in range(tl.max(segment + segments, 0), num_segments, BLOCK_P):
            unused = start + tl.arange(0, BLOCK_P)
            tl.store(segments_ptr + unused * 4, -1, mask=unused < num_segments)

    seen = tl.zeros([BLOCK_N], tl.int32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        chosen = tl.load(indices_ptr + b * P + p, mask=p < P, other=-1).to(tl.int32)
        match = ((chosen[None, :] == n[:, None]) & (n < N)[:, None]).to(tl.int32)
        place = pair[:, None] + seen[:, None] + tl.cumsum(match, 1) - match
        value = tl.broadcast_to(p[None, :], [BLOCK_N, BLOCK_P])
        tl.store(pairs_ptr + place, value, mask=match > 0)
        seen += tl.sum(match, 1)


def plan_readers(device: torch.device, chunk_indices: Layout, num_chunks: int) -> ReadersPlan:
    """Prepare to invert chunk_indices without reading anything back to the host."""
    B, C, K = chunk_indices.shape
    P, N = C * K, num_chunks
    # chunks with more than the longest segment's pairs need fewer than 2 P / length partial sums
    num_partials = 2 * P // LONGEST_SEGMENT + 1
    num_segments = N + P // SHORTEST_SEGMENT
    row_size = P + N + 4 * num_segments + 2 * N
    grid = (triton.cdiv(N, _BLOCK_N), B)
    block_p = min(_BLOCK_P, triton.next_power_of_2(P))
    count = Launch(_count_kernel, grid, N, P, row_size, _BLOCK_N, block_p)
    place = Launch(
        _place_kernel,
        grid,
        N,
        P,
        num_segments,
        num_partials,
        row_size,
        LONGEST_SEGMENT,
        HALVINGS,
        _BLOCK_N,
        block_p,
    )

    def run(chunk_indices: Tensor) -> Tensor:
        index = torch.empty((B, row_size), dtype=torch.int32, device=device)
        count(chunk_indices, index)
        place(chunk_indices, index)
        return index

    return ReadersPlan(run, num_segments, num_partials, row_size)
