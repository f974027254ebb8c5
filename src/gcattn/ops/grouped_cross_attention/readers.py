"""Who reads each chunk: the inverted index that the gradients of keys and values go through.

A pair (c, k) says that chunk c has pool chunk n in slot k. The backward pass gives every pool
chunk a program that walks its pairs in order, so nothing is added atomically and the result is the
same in every run. A chunk that is read by many is cut into segments, each with a partial sum of its
own, so that one popular chunk does not keep the whole GPU waiting; a chunk that nobody reads gets
one empty segment, which writes its zeros.

No kernel does only this: the forward kernel counts the readers beside its own work, and the first
backward kernel places them.

Letters: B batch, N chunks in the pool, P = C · K pairs of a row.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import NamedTuple

import triton
import triton.language as tl

from gcattn.ops.launch import Layout

# pairs per segment: the longest, halved as long as the partial sums fit the room there is
LONGEST_SEGMENT, HALVINGS = 96, 3
SHORTEST_SEGMENT = LONGEST_SEGMENT >> HALVINGS
_LONGEST, _HALVINGS = tl.constexpr(LONGEST_SEGMENT), tl.constexpr(HALVINGS)
# pool chunks of a program
_BLOCK_N = tl.constexpr(8)
_MAX_BLOCK_P = 512


class Readers(NamedTuple):
    """Sizes of the index. For each row of the batch it has integers in one piece:

    pairs [P], c · K + k, grouped by chunk · segments [num_segments, 4]: chunk (-1: none), first
    pair, end, partial sum (-1: none) · partials [N, 2]: first partial sum of the chunk and how
    many, 0 if there are none
    """

    num_programs: int  # that count, and as many that place
    num_segments: int
    num_partials: int  # room for partial sums
    row_size: int
    block_p: int


def index_sizes(chunk_indices: Layout, num_chunks: int) -> Readers:
    """Sizes of the index of what was retrieved from so many chunks."""
    B, C, K = chunk_indices.shape
    P, N = C * K, num_chunks
    num_segments = N + P // SHORTEST_SEGMENT
    return Readers(
        num_programs=B * triton.cdiv(N, _BLOCK_N.value),
        num_segments=num_segments,
        # chunks with more than the longest segment's pairs need fewer than 2 P / length
        num_partials=2 * P // LONGEST_SEGMENT + 1,
        row_size=P + 4 * num_segments + 2 * N,
        block_p=min(_MAX_BLOCK_P, triton.next_power_of_2(P)),
    )


@triton.jit
def segments_of(index_ptr, b, P, row_size):
    """Where the segments of a row begin."""
    return index_ptr + b * row_size + P


@triton.jit
def partials_of(index_ptr, b, P, num_segments, row_size):
    """Where the partial sums of a row are listed."""
    return segments_of(index_ptr, b, P, row_size) + num_segments * 4


@triton.jit
def _any_of_block(chosen, first_n):
    """Say whether a program's chunks are among those chosen: most pairs are soon passed over."""
    return tl.max(((chosen >= first_n) & (chosen < first_n + _BLOCK_N)).to(tl.int32), 0) > 0


@triton.jit
def count_readers(indices_ptr, counts_ptr, pid, N, P, BLOCK_P: tl.constexpr):
    """Count the readers of a few chunks of one row."""
    num_blocks = tl.cdiv(N, _BLOCK_N)
    b = (pid // num_blocks).to(tl.int64)
    first_n = (pid % num_blocks) * _BLOCK_N
    n = first_n + tl.arange(0, _BLOCK_N)
    count = tl.zeros([_BLOCK_N], tl.int32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        chosen = tl.load(indices_ptr + b * P + p, mask=p < P, other=-1).to(tl.int32)
        if _any_of_block(chosen, first_n):
            count += tl.sum((chosen[None, :] == n[:, None]).to(tl.int32), 1)
    tl.store(counts_ptr + b * N + n, count, mask=n < N)


@triton.jit
def _num_segments(count, length):
    return (count + length - 1) // length


@triton.jit
def _segment_length(counts_ptr, N, room, BLOCK: tl.constexpr):
    """The shortest segment length whose partial sums fit; the longest always does."""
    chosen = tl.full([], _LONGEST, tl.int32)
    for i in tl.static_range(1, _HALVINGS + 1):
        needed = tl.full([], 0, tl.int32)
        for start in range(0, N, BLOCK):
            n = start + tl.arange(0, BLOCK)
            segments = _num_segments(tl.load(counts_ptr + n, mask=n < N, other=0), _LONGEST >> i)
            needed += tl.sum(tl.where(segments > 1, segments, 0), 0)
        chosen = tl.where(needed <= room, _LONGEST >> i, chosen)
    return chosen


@triton.jit
def place_readers(
    indices_ptr,
    counts_ptr,
    index_ptr,
    pid,
    N,
    P,
    num_segments,
    room,
    row_size,
    BLOCK_P: tl.constexpr,
):
    """Write the pairs and segments of a few chunks of one row, after all were counted."""
    num_blocks = tl.cdiv(N, _BLOCK_N)
    b = (pid // num_blocks).to(tl.int64)
    counts_ptr += b * N
    pairs_ptr = index_ptr + b * row_size
    segments_ptr = segments_of(index_ptr, b, P, row_size)
    partials_ptr = partials_of(index_ptr, b, P, num_segments, row_size)
    length = _segment_length(counts_ptr, N, room, BLOCK_P)

    first_n = (pid % num_blocks) * _BLOCK_N
    n = first_n + tl.arange(0, _BLOCK_N)
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
    if first_n + _BLOCK_N >= N:  # after the last chunk's segments there is nothing to do
        for start in range(tl.max(segment + segments, 0), num_segments, BLOCK_P):
            unused = start + tl.arange(0, BLOCK_P)
            tl.store(segments_ptr + unused * 4, -1, mask=unused < num_segments)

    seen = tl.zeros([_BLOCK_N], tl.int32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        chosen = tl.load(indices_ptr + b * P + p, mask=p < P, other=-1).to(tl.int32)
        if _any_of_block(chosen, first_n):
            match = ((chosen[None, :] == n[:, None]) & (n < N)[:, None]).to(tl.int32)
            place = pair[:, None] + seen[:, None] + tl.cumsum(match, 1) - match
            value = tl.broadcast_to(p[None, :], [_BLOCK_N, BLOCK_P])
            tl.store(pairs_ptr + place, value, mask=match > 0)
            seen += tl.sum(match, 1)
