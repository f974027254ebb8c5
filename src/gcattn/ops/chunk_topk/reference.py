"""Choosing chunks in plain PyTorch: any device, any dtype.

Shapes: B batch, C querying chunks, N past chunks, K retrieved chunks, E hidden size.
"""

import torch
from torch import Tensor

from gcattn.ops.chunk_topk.native_scores import fits_kernel, score_natively
from gcattn.ops.chunk_topk.running_best import BestChunks, nothing_yet, with_block
from gcattn.ops.implementation import Impl

# past chunks scored at once by few queries: work enough for several threads
SCORE_BLOCK = 8192
# many queries have work enough in a part of a block, which the caches of a CPU hold
_MANY_QUERIES, _PARTS = 16, 4


def best_chunks_reference(
    queries: Tensor,
    landmarks: Tensor,
    num_visible: Tensor,
    query_documents: Tensor | None,
    landmark_documents: Tensor | None,
    top_k: int,
    is_scored: bool,
    is_noisy: bool,
    impl: Impl = "reference",
) -> BestChunks:
    """Choose the best visible chunks; arguments as in `api`; "auto" may score in a kernel.

    Chunks are scored, or left to the noise alone, and the best so far compete with the next block:
    all queries share one read of the landmarks.
    """
    B, C, _ = queries.shape
    wide = torch.promote_types(queries.dtype, torch.float32)
    best = nothing_yet(queries, top_k)
    num_open = _seen_by_all(num_visible, landmark_documents)
    size = SCORE_BLOCK if C < _MANY_QUERIES else max(SCORE_BLOCK // _PARTS, 1)
    for start in range(0, landmarks.shape[1], size):
        block = landmarks[:, start : start + size]
        if is_scored and impl == "auto" and fits_kernel(queries, block):
            scores = score_natively(queries, block)
        elif is_scored:
            scores = score_chunks(queries, block, wide)
        else:
            scores = queries.new_zeros((B, C, block.shape[1]), dtype=wide)
        if is_noisy:
            scores = scores + _gumbel(scores)
        if start + block.shape[1] > num_open:
            numbers = range(start, start + block.shape[1])
            visible = visible_chunks(num_visible, query_documents, landmark_documents, numbers)
            scores = scores.masked_fill(~visible, -torch.inf)
        best = with_block(best, scores, start)
    return best


def visible_chunks(
    num_visible: Tensor,
    query_documents: Tensor | None,
    landmark_documents: Tensor | None,
    numbers: range,
) -> Tensor:
    """Return which of the chunks with these numbers each query may choose, bool [B, C, n]."""
    indices = torch.arange(numbers.start, numbers.stop, device=num_visible.device)
    visible = indices < num_visible.unsqueeze(-1)
    if query_documents is None or landmark_documents is None:
        return visible
    documents = landmark_documents[:, None, numbers.start : numbers.stop]
    return visible & (documents == query_documents.unsqueeze(-1))


def score_chunks(queries: Tensor, landmarks: Tensor, wide: torch.dtype) -> Tensor:
    """Return the relevance of chunks, [B, C, n], computed in `wide` whatever autocast says."""
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.to(wide) @ landmarks.to(wide).mT  # [B, C, n]
        return scores.mul_(queries.shape[-1] ** -0.5)


def _seen_by_all(num_visible: Tensor, landmark_documents: Tensor | None) -> int:
    """Return how many of the first chunks every query sees, as far as that is cheap to know."""
    if torch.compiler.is_compiling() or landmark_documents is not None or not num_visible.numel():
        return 0
    return int(num_visible.min())


def _gumbel(like: Tensor) -> Tensor:
    exponential = torch.empty_like(like).exponential_()
    return -exponential.clamp_min(torch.finfo(like.dtype).tiny).log()
