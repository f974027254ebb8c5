"""Choosing chunks in plain PyTorch: any device, any dtype.

Shapes: B batch, C querying chunks, N past chunks, K retrieved chunks, E hidden size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# past chunks scored at once: bounds the scores held in memory at [B, C, 8192]
SCORE_BLOCK = 8192


class BestChunks(NamedTuple):
    """The best visible chunks, best first; equal scores in the order of the chunks."""

    indices: Tensor  # [B, C, K], -1 where there are fewer
    scores: Tensor  # [B, C, K], noise included, minus infinity where there are fewer


def best_chunks_reference(
    queries: Tensor,
    landmarks: Tensor,
    num_visible: Tensor,
    query_documents: Tensor | None,
    landmark_documents: Tensor | None,
    top_k: int,
    is_scored: bool,
    is_noisy: bool,
) -> BestChunks:
    """Choose the best visible chunks; arguments as in `api`.

    Chunks are scored, or left to the noise alone, and the best so far compete with the next block.
    """
    B, C, E = queries.shape
    wide = torch.promote_types(queries.dtype, torch.float32)
    best_scores = queries.new_full((B, C, top_k), -torch.inf, dtype=wide)
    best_indices = torch.full((B, C, top_k), -1, dtype=torch.long, device=queries.device)
    for start in range(0, landmarks.shape[1], SCORE_BLOCK):
        block = landmarks[:, start : start + SCORE_BLOCK]
        indices = torch.arange(start, start + block.shape[1], device=queries.device)
        scores = queries.new_zeros((B, C, block.shape[1]), dtype=wide)
        if is_scored:
            with torch.autocast(queries.device.type, enabled=False):
                scores = queries.to(wide) @ block.to(wide).mT * E**-0.5  # [B, C, n]
        if is_noisy:
            scores = scores + _gumbel(scores)
        visible = indices < num_visible.unsqueeze(-1)
        if query_documents is not None and landmark_documents is not None:
            documents = landmark_documents[:, None, start : start + SCORE_BLOCK]
            visible = visible & (documents == query_documents.unsqueeze(-1))
        scores = torch.cat([best_scores, scores.masked_fill(~visible, -torch.inf)], dim=-1)
        indices = torch.cat([best_indices, indices.expand(B, C, -1)], dim=-1)
        order = _best_places(scores, top_k)
        best_scores, best_indices = scores.gather(-1, order), indices.gather(-1, order)
    return BestChunks(best_indices.masked_fill(best_scores == -torch.inf, -1), best_scores)


def _best_places(scores: Tensor, top_k: int) -> Tensor:
    """Return the places of the K largest, best first; of two equal ones the earlier is first."""
    if not torch.compiler.is_compiling():
        values, places = scores.topk(min(top_k, scores.shape[-1]), dim=-1)
        least = values[..., -1:]
        equal = ((scores >= least) & (least > -torch.inf)).sum(-1) > values.shape[-1]
        if not bool(equal.any()):  # else topk may have kept the later one of two
            places = places.sort(dim=-1).values
            values = scores.gather(-1, places)
            order = values.argsort(dim=-1, descending=True, stable=True)
            return places.gather(-1, order)
    # a stable sort gives equal scores to the earlier chunk, at ten times the cost
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :top_k]


def _gumbel(like: Tensor) -> Tensor:
    exponential = torch.empty_like(like).exponential_()
    return -exponential.clamp_min(torch.finfo(like.dtype).tiny).log()
