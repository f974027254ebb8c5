"""Choosing chunks on the GPU: one read of the landmarks, one integer per score, top-k of integers.

The integer holds the score in its high half, in an order-preserving form, and the chunk's place,
counted down, in its low half. So no two are equal, and top-k gives equal scores to the earlier
chunk on every device.

Letters: B batch, C querying chunks, N past chunks, K retrieved chunks, E hidden size.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

# integers that exist at a time: with more, the best so far compete with the next block of chunks
MAX_KEYS = 2**24
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


@triton.jit(do_not_specialize=["N", "start"])
def _keys_kernel(
    queries_ptr,  # [B, C, E]
    landmarks_ptr,  # [B, N, E]
    num_visible_ptr,  # [B, C]
    query_documents_ptr,  # [B, C]
    landmark_documents_ptr,  # [B, N]
    seed_ptr,  # [1]
    keys_ptr,  # [B, C, top_k + width]
    stride_qb,
    stride_qc,
    stride_lb,
    stride_ln,
    C,
    N,
    E,
    top_k,
    start,
    width,
    num_tiles_c,
    num_tiles_n,
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
    """One program owns one tile of chunks start … start + width - 1 and of querying chunks."""
    pid = tl.program_id(0)
    tile_c = pid % num_tiles_c
    tile_n = (pid // num_tiles_c) % num_tiles_n
    b = (pid // num_tiles_c // num_tiles_n).to(tl.int64)
    column = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    n = (start + column).to(tl.int64)
    c = (tile_c * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    num_visible = tl.load(num_visible_ptr + b * C + c, mask=c < C, other=0)
    num_visible = tl.minimum(num_visible, N)
    scores = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
    if IS_SCORED:
        e = tl.arange(0, BLOCK_E)
        # past the end the last row is read again: a mask would cost more
        at_q = b * stride_qb + tl.minimum(c, C - 1) * stride_qc
        at_l = b * stride_lb + tl.minimum(n, N - 1) * stride_ln
        # of chunks that nobody may choose nothing is read
        if start + tile_n * BLOCK_N < tl.max(num_visible, 0):
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
    keys = tl.where(visible, _ordered_keys(scores, n[:, None]), _KERNEL_INVISIBLE)
    at = (b * C + c)[None, :] * (top_k + width) + (top_k + column)[:, None]
    tl.store(keys_ptr + at, keys, mask=(column < width)[:, None] & (c < C)[None, :])


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
    """Launch the kernel on block after block of chunks and keep the best keys, [B, C, K]."""
    B, C, E = queries.shape
    N = landmarks.shape[1]
    width = min(N, max(top_k, MAX_KEYS // max(1, B * C)))
    keys = torch.empty((B, C, top_k + width), dtype=torch.long, device=queries.device)
    best = keys[..., :top_k].fill_(_INVISIBLE)
    is_full = torch.float32 in (queries.dtype, landmarks.dtype) or queries.dtype != landmarks.dtype
    block_n, block_e, num_warps, num_stages = _FULL_TILE if is_full else _HALF_TILE
    block_c = min(max(triton.next_power_of_2(max(C, 1)), _BLOCK_C[0]), _BLOCK_C[1])
    num_tiles_c, num_tiles_n = triton.cdiv(C, block_c), triton.cdiv(width, block_n)
    if B * C == 0:
        return best
    for start in range(0, N, max(width, 1)):
        _keys_kernel[(B * num_tiles_n * num_tiles_c,)](
            queries,
            landmarks,
            num_visible,
            query_documents,
            landmark_documents,
            seed,
            keys,
            *queries.stride()[:2],
            *landmarks.stride()[:2],
            C=C,
            N=N,
            E=E,
            top_k=top_k,
            start=start,
            width=width,
            num_tiles_c=num_tiles_c,
            num_tiles_n=num_tiles_n,
            scale=E**-0.5,
            HAS_DOCUMENTS=query_documents is not None,
            IS_SCORED=is_scored,
            IS_NOISY=seed is not None,
            IS_MIXED=queries.dtype != landmarks.dtype,
            EVEN_E=E % block_e == 0,
            BLOCK_N=block_n,
            BLOCK_C=block_c,
            BLOCK_E=block_e,
            num_warps=num_warps,
            num_stages=num_stages,
        )
        best.copy_(keys.topk(top_k, dim=-1).values)
    return best
