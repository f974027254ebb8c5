"""The best chunks so far, while block after block of chunks is scored.

Shapes: K kept chunks, n chunks of a block; queries have any shape.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class BestChunks(NamedTuple):
    """The best visible chunks, best first; equal scores in the order of the chunks."""

    indices: Tensor  # [..., K], -1 where there are fewer
    scores: Tensor  # [..., K], noise included, minus infinity where there are fewer


def nothing_yet(queries: Tensor, top_k: int) -> BestChunks:
    """Return no chunks for each query [..., E]."""
    wide = torch.promote_types(queries.dtype, torch.float32)
    shape = (*queries.shape[:-1], top_k)
    indices = torch.full(shape, -1, dtype=torch.long, device=queries.device)
    return BestChunks(indices, queries.new_full(shape, -torch.inf, dtype=wide))


def with_block(best: BestChunks, scores: Tensor, start: int) -> BestChunks:
    """Let the best so far compete with the next chunks.

    Args:
        best: So far; not used any more.
        scores: Of chunks start … start + n - 1, [..., n], minus infinity where a query does not see
            the chunk.
        start: Number of the first.
    """
    if torch.compiler.is_compiling():
        return _best_of_both(best, scores, start)
    # few queries find better chunks in a late block; the others have nothing to sort
    rows = ~(scores.amax(-1) <= best.scores[..., -1])
    num_better = int(rows.sum())
    if num_better == rows.numel() > 0:  # a single query: to pick its row would copy its scores
        return _best_of_both(best, scores, start)
    if num_better:
        better = _best_of_both(BestChunks(*(x[rows] for x in best)), scores[rows], start)
        for x, found in zip(best, better, strict=True):
            x[rows] = found
    return best


def _best_of_both(best: BestChunks, scores: Tensor, start: int) -> BestChunks:
    top_k, (*shape, n) = best.scores.shape[-1], scores.shape
    numbers = torch.arange(start, start + n, device=scores.device)
    scores = torch.cat([best.scores, scores], dim=-1)
    indices = torch.cat([best.indices, numbers.expand(*shape, n)], dim=-1)
    order = _best_places(scores, top_k)
    scores, indices = scores.gather(-1, order), indices.gather(-1, order)
    return BestChunks(indices.masked_fill(scores == -torch.inf, -1), scores)


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
