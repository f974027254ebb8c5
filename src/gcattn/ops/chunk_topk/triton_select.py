"""Choosing chunks on the GPU: one read of the landmarks, one integer per score, top-k of integers.

The integer, a key, holds the score in its high half, in an order-preserving form, and the chunk's
place, counted down, in its low half. So no two are equal, and top-k gives equal scores to the
earlier chunk on every device.

Of a long memory the scan writes the greatest key of each tile alone. The K best chunks lie in the K
tiles with the greatest of these: a chunk of any other tile is below K keys. These tiles are scored
once more. So a scan costs little more than to read the landmarks, for one query as for many.

Letters: B batch, C querying chunks, N past chunks, K retrieved chunks, E hidden size.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

# keys that exist at a time: with more, the best so far compete with the next block
MAX_KEYS = 2**24
# up to so many chunks every key is written
SHORT_MEMORY = 2**14
_PLACES = 2**32 - 1
# below every key: a chunk that may not be chosen
_INVISIBLE = -(2**63)
_KERNEL_PLACES = tl.constexpr(_PLACES)
_KERNEL_INVISIBLE = tl.constexpr(_INVISIBLE)
_LEAST_UNIFORM = tl.constexpr(2.0**-32)

# (chunks, hidden sizes, warps, pipeline stages) of a tile; full precision has no matrix units
_HALF_TILE, _FULL_TILE = (128, 64, 4, 4), (64, 32, 8, 2)
_BLOCK_C = (16, 32)  # querying chunks of a tile, least and most


@triton.jit
def _gumbel(seed, offset):
    """Draw Gumbel(0, 1) noise that depends on seed and offset alone."""
    uniform = tl.maximum(tl.rand(seed, offset), _LEAST_UNIFORM)
    # -log(1 - u), whose rounding would cut the largest noise off, is a series where u is small
    series = uniform * (1.0 + uniform * (0.5 + uniform * (1.0 / 3.0)))
    exponential = tl.where(uniform < 0.01, series, -tl.log(1.0 - uniform))
    return -tl.log(exponential)


@triton.jit
def _ordered_keys(scores, n):
    """Turn scores and places into integers of the same order; the earlier of two equal is first."""
    scores = tl.where(scores == 0.0, 0.0, scores)  # zero has one sign
    bits = scores.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (_KERNEL_PLACES - n)


@triton.jit
def _tile_keys(
    queries_ptr,  # [B, C, E]
    landmarks_ptr,  # [B, N, E]
    num_visible_ptr,  # [B, C]
    query_documents_ptr,  # [B, C]
    landmark_documents_ptr,  # [B, N]
    seed_ptr,  # [1]
    stride_qb,
    stride_qc,
    stride_lb,
    stride_ln,
    b,
    first_c,
    first_n,
    C,
    N,
    E,
    scale,
    HAS_DOCUMENTS: tl.constexpr,
    IS_SCORED: tl.constexpr,
    IS_NOISY: tl.constexpr,
    IS_MIXED: tl.constexpr,
    EVEN_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Return the keys of a tile of chunks for a tile of querying chunks, [BLOCK_N, BLOCK_C]."""
    n = (first_n + tl.arange(0, BLOCK_N)).to(tl.int64)
    c = (first_c + tl.arange(0, BLOCK_C)).to(tl.int64)
    num_visible = tl.load(num_visible_ptr + b * C + c, mask=c < C, other=0)
    num_visible = tl.minimum(num_visible, N)
    scores = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
    if IS_SCORED:
        e = tl.arange(0, BLOCK_E)
        # past the end the last row is read again: a mask would cost more
        at_q = b * stride_qb + tl.minimum(c, C - 1) * stride_qc
        at_l = b * stride_lb + tl.minimum(n, N - 1) * stride_ln
        # of chunks that nobody may choose nothing is read
        if first_n < tl.max(num_visible, 0):
            for first in range(0, E, BLOCK_E):
                ptrs_q = queries_ptr + (at_q[:, None] + (first + e)[None, :])
                ptrs_l = landmarks_ptr + (at_l[:, None] + (first + e)[None, :])
                if EVEN_E:
                    query, landmark = tl.load(ptrs_q), tl.load(ptrs_l)
                else:
                    inside = (first + e < E)[None, :]
                    query = tl.load(ptrs_q, mask=inside, other=0.0)
                    landmark = tl.load(ptrs_l, mask=inside, other=0.0)
                if IS_MIXED:
                    query, landmark = query.to(tl.float32), landmark.to(tl.float32)
                scores = tl.dot(landmark, tl.trans(query), scores, input_precision="ieee")
    scores *= scale
    if IS_NOISY:
        # by place, so that the noise does not depend on tiles and blocks
        offset = ((b * C + c) << 32)[None, :] + n[:, None]
        scores += _gumbel(tl.load(seed_ptr), offset)
    visible = (n[:, None] < num_visible[None, :]) & (scores != float("-inf"))
    if HAS_DOCUMENTS:
        query_document = tl.load(query_documents_ptr + b * C + c, mask=c < C, other=0)
        landmark_document = tl.load(landmark_documents_ptr + b * N + n, mask=n < N, other=0)
        visible = visible & (landmark_document[:, None] == query_document[None, :])
    return tl.where(visible, _ordered_keys(scores, n[:, None]), _KERNEL_INVISIBLE)


@triton.jit(do_not_specialize=["N", "first_tile"])
def _scan_kernel(
    queries_ptr,
    landmarks_ptr,
    num_visible_ptr,
    query_documents_ptr,
    landmark_documents_ptr,
    seed_ptr,
    keys_ptr,  # [B, C, top_k + width]
    stride_qb,
    stride_qc,
    stride_lb,
    stride_ln,
    C,
    N,
    E,
    top_k,
    first_tile,
    width,
    num_tiles_c,
    num_tiles_n,
    scale,
    IS_SHORT: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    IS_SCORED: tl.constexpr,
    IS_NOISY: tl.constexpr,
    IS_MIXED: tl.constexpr,
    EVEN_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """One program owns one tile of chunks and of querying chunks; it writes all keys or the best.

    Programs of one tile of chunks follow each other: all but the first find it in the cache.
    """
    pid = tl.program_id(0)
    tile_c = pid % num_tiles_c
    tile_n = (pid // num_tiles_c) % num_tiles_n
    b = (pid // num_tiles_c // num_tiles_n).to(tl.int64)
    keys = _tile_keys(
        queries_ptr,
        landmarks_ptr,
        num_visible_ptr,
        query_documents_ptr,
        landmark_documents_ptr,
        seed_ptr,
        stride_qb,
        stride_qc,
        stride_lb,
        stride_ln,
        b,
        tile_c * BLOCK_C,
        (first_tile + tile_n) * BLOCK_N,
        C,
        N,
        E,
        scale,
        HAS_DOCUMENTS,
        IS_SCORED,
        IS_NOISY,
        IS_MIXED,
        EVEN_E,
        BLOCK_N,
        BLOCK_C,
        BLOCK_E,
    )
    c = (tile_c * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    at = (b * C + c) * (top_k + width) + top_k
    if IS_SHORT:
        column = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = (column < width)[:, None] & (c < C)[None, :]
        tl.store(keys_ptr + (at[None, :] + column[:, None]), keys, mask=inside)
    else:
        tl.store(keys_ptr + (at + tile_n), tl.max(keys, 0), mask=c < C)


@triton.jit(do_not_specialize=["N"])
def _rescore_kernel(
    queries_ptr,
    landmarks_ptr,
    num_visible_ptr,
    query_documents_ptr,
    landmark_documents_ptr,
    seed_ptr,
    best_ptr,  # [B, C, top_k]
    keys_ptr,  # [B, C, top_k, BLOCK_N]
    stride_qb,
    stride_qc,
    stride_lb,
    stride_ln,
    C,
    N,
    E,
    top_k,
    scale,
    HAS_DOCUMENTS: tl.constexpr,
    IS_SCORED: tl.constexpr,
    IS_NOISY: tl.constexpr,
    IS_MIXED: tl.constexpr,
    EVEN_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """One program owns one of the K tiles of one querying chunk and writes all keys of it.

    It computes what the scan did, for the neighbours of the querying chunk too: the same bits.
    """
    pid = tl.program_id(0).to(tl.int64)
    row = pid // top_k  # b * C + c
    b, c = row // C, row % C
    best = tl.load(best_ptr + pid)
    column = tl.arange(0, BLOCK_N)
    keys = tl.full([BLOCK_N], _KERNEL_INVISIBLE, tl.int64)
    if best != _KERNEL_INVISIBLE:
        place = _KERNEL_PLACES - (best & _KERNEL_PLACES)
        tile = _tile_keys(
            queries_ptr,
            landmarks_ptr,
            num_visible_ptr,
            query_documents_ptr,
            landmark_documents_ptr,
            seed_ptr,
            stride_qb,
            stride_qc,
            stride_lb,
            stride_ln,
            b,
            c // BLOCK_C * BLOCK_C,
            place // BLOCK_N * BLOCK_N,
            C,
            N,
            E,
            scale,
            HAS_DOCUMENTS,
            IS_SCORED,
            IS_NOISY,
            IS_MIXED,
            EVEN_E,
            BLOCK_N,
            BLOCK_C,
            BLOCK_E,
        )
        is_own = tl.arange(0, BLOCK_C) == c % BLOCK_C
        keys = tl.max(tl.where(is_own[None, :], tile, _KERNEL_INVISIBLE), 1)
    tl.store(keys_ptr + pid * BLOCK_N + column, keys)


def select_chunks(*arguments) -> Tensor:
    """Choose the best chunks, [B, C, K], -1 where there are fewer; arguments as `best_keys` has."""
    return places_of(best_keys(*arguments))


def scores_of(keys: Tensor) -> Tensor:
    """Return the scores that keys were made of, float32; minus infinity for invisible chunks."""
    ordered = (keys >> 32).to(torch.int32)
    scores = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return torch.where(keys == _INVISIBLE, -torch.inf, scores)


def places_of(keys: Tensor) -> Tensor:
    """Return the places of the chunks that keys stand for, -1 for invisible ones."""
    return torch.where(keys == _INVISIBLE, -1, _PLACES - (keys & _PLACES))


def best_keys(
    queries: Tensor,
    landmarks: Tensor,
    num_visible: Tensor,
    query_documents: Tensor | None,
    landmark_documents: Tensor | None,
    seed: Tensor | None,
    top_k: int,
    is_scored: bool,
) -> Tensor:
    """Scan the landmarks and return the best keys, [B, C, K], best first."""
    B, C, E = queries.shape
    N = landmarks.shape[1]
    if B * C * N == 0:
        return num_visible.new_full((B, C, top_k), _INVISIBLE, dtype=torch.long)
    is_full = torch.float32 in (queries.dtype, landmarks.dtype) or queries.dtype != landmarks.dtype
    block_n, block_e, num_warps, num_stages = _FULL_TILE if is_full else _HALF_TILE
    block_c = min(max(triton.next_power_of_2(C), _BLOCK_C[0]), _BLOCK_C[1])
    inputs = (
        queries,
        landmarks,
        num_visible,
        query_documents,
        landmark_documents,
        seed,
    )
    strides = (*queries.stride()[:2], *landmarks.stride()[:2])
    options = {
        "C": C,
        "N": N,
        "E": E,
        "top_k": top_k,
        "scale": E**-0.5,
        "HAS_DOCUMENTS": query_documents is not None,
        "IS_SCORED": is_scored,
        "IS_NOISY": seed is not None,
        "IS_MIXED": queries.dtype != landmarks.dtype,
        "EVEN_E": E % block_e == 0,
        "BLOCK_N": block_n,
        "BLOCK_C": block_c,
        "BLOCK_E": block_e,
        "num_warps": num_warps,
        "num_stages": num_stages,
    }
    is_short = N <= SHORT_MEMORY
    per_tile = block_n if is_short else 1  # keys that are written
    num_tiles = triton.cdiv(N, block_n)
    tiles_at_once = min(num_tiles, max(1, MAX_KEYS // (B * C * per_tile)))
    keys = torch.empty(
        (B, C, top_k + tiles_at_once * per_tile), dtype=torch.long, device=queries.device
    )
    best = keys[..., :top_k].fill_(_INVISIBLE)
    num_tiles_c = triton.cdiv(C, block_c)
    for first_tile in range(0, num_tiles, tiles_at_once):
        # tiles past the last one hold nothing that may be chosen
        _scan_kernel[(B * tiles_at_once * num_tiles_c,)](
            *inputs,
            keys,
            *strides,
            first_tile=first_tile,
            width=tiles_at_once * per_tile,
            num_tiles_c=num_tiles_c,
            num_tiles_n=tiles_at_once,
            IS_SHORT=is_short,
            **options,
        )
        best.copy_(keys.topk(top_k, dim=-1).values)
    if is_short:
        return best
    best = best.contiguous()
    keys = torch.empty((B, C, top_k * block_n), dtype=torch.long, device=queries.device)
    _rescore_kernel[(B * C * top_k,)](*inputs, best, keys, *strides, **options)
    return keys.topk(top_k, dim=-1).values
