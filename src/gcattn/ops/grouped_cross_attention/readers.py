"""Who reads each chunk: the inverted index that the gradients of keys and values go through.

A pair (c, k) says that chunk c has pool chunk n in slot k. The backward pass gives every pool
chunk a program that walks its pairs in order, so nothing is added atomically and the result is the
same in every run. A chunk that is read by many is cut into segments, each with a partial sum of its
own, so that one popular chunk does not keep the whole GPU waiting; a chunk that nobody reads gets
one empty segment, which writes its zeros.

Letters: B batch, N chunks in the pool, P = C · K pairs of a row.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# pairs per segment: the longest, halved as long as the partial sums fit the room there is
LONGEST_SEGMENT, HALVINGS = 96, 3
SHORTEST_SEGMENT = LONGEST_SEGMENT >> HALVINGS
_BLOCK_N, _BLOCK_P = 2, 1024


class ReadersIndex(NamedTuple):
    """Pairs ordered by the chunk that they read, cut into segments."""

    pairs: Tensor  # [B, P], c · K + k, grouped by chunk
    segments: Tensor  # [B, segments, 4]: chunk (-1: none), first pair, end, partial sum (-1: none)
    partials: Tensor  # [B, N, 2]: first partial sum of the chunk and how many, 0 if there are none
    num_partials: int  # room for partial sums per row of the batch


@triton.jit
def _count_kernel(indices_ptr, counts_ptr, N, P, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr):
    """One program counts the readers of a few chunks of one row."""
    b = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    count = tl.zeros([BLOCK_N], tl.int32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        chosen = tl.load(indices_ptr + b * P + p, mask=p < P, other=-1).to(tl.int32)
        count += tl.sum((chosen[None, :] == n[:, None]).to(tl.int32), 1)
    tl.store(counts_ptr + b * N + n, count, mask=n < N)


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
    counts_ptr,
    pairs_ptr,
    segments_ptr,
    partials_ptr,
    N,
    P,
    num_segments,
    room,
    LONGEST: tl.constexpr,
    HALVINGS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One program writes the pairs and segments of a few chunks of one row."""
    b = tl.program_id(1).to(tl.int64)
    counts_ptr += b * N
    segments_ptr += b * num_segments * 4
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
    tl.store(partials_ptr + (b * N + n) * 2, partial, mask=n < N)
    tl.store(partials_ptr + (b * N + n) * 2 + 1, partials, mask=n < N)
    for i in range(0, tl.max(segments, 0)):
        at = segments_ptr + (segment + i) * 4
        inside = i < segments
        tl.store(at, n, mask=inside)
        tl.store(at + 1, pair + i * length, mask=inside)
        tl.store(at + 2, pair + tl.minimum((i + 1) * length, count), mask=inside)
        tl.store(at + 3, tl.where(partials > 0, partial + i, -1), mask=inside)
    if first_n + BLOCK_N >= N:  # behind the last chunk's segments there is nothing to do
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
        tl.store(pairs_ptr + b * P + place, value, mask=match > 0)
        seen += tl.sum(match, 1)


def index_readers(chunk_indices: Tensor, num_chunks: int) -> ReadersIndex:
    """Invert chunk_indices [B, C, K], contiguous, without reading anything back to the host."""
    B, P, N = chunk_indices.shape[0], chunk_indices[0].numel(), num_chunks
    device = chunk_indices.device
    # chunks with more than the longest segment's pairs need fewer than 2 P / length partial sums
    num_partials = 2 * P // LONGEST_SEGMENT + 1
    num_segments = N + P // SHORTEST_SEGMENT
    counts = torch.empty((B, N), dtype=torch.int32, device=device)
    pairs = torch.empty((B, P), dtype=torch.int32, device=device)
    segments = torch.empty((B, num_segments, 4), dtype=torch.int32, device=device)
    partials = torch.empty((B, N, 2), dtype=torch.int32, device=device)
    grid = (triton.cdiv(N, _BLOCK_N), B)
    block_p = min(_BLOCK_P, triton.next_power_of_2(P))
    blocks = {"BLOCK_N": _BLOCK_N, "BLOCK_P": block_p}
    _count_kernel[grid](chunk_indices, counts, N, P, **blocks)
    _place_kernel[grid](
        chunk_indices,
        counts,
        pairs,
        segments,
        partials,
        N,
        P,
        num_segments,
        num_partials,
        LONGEST=LONGEST_SEGMENT,
        HALVINGS=HALVINGS,
        **blocks,
    )
    return ReadersIndex(pairs, segments, partials, num_partials)
