"""Choosing among chunks that are spread over several holders: candidates of each, then the best.

Each holder scores its own chunks and names its K best; the K best of all are among them. Nothing
but indices and scores has to be brought together, K of each for every query.

Shapes: B batch, C querying chunks, N chunks of one holder, K retrieved chunks, E hidden size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gcattn.ops.chunk_topk.api import check_shapes, unfit_for_triton
from gcattn.ops.chunk_topk.reference import SCORE_BLOCK, best_chunks_reference
from gcattn.ops.chunk_topk.running_best import BestChunks
from gcattn.ops.implementation import Impl, runs_triton


@torch.no_grad()
def chunk_candidates(
    queries: Tensor,
    landmarks: Tensor,
    num_visible: Tensor,
    top_k: int,
    *,
    query_documents: Tensor | None = None,
    landmark_documents: Tensor | None = None,
    impl: Impl = "auto",
) -> BestChunks:
    """Return a holder's `top_k` best chunks and their scores; arguments as `chunk_topk` has them.

    Indices are those of the holder's own landmarks. A pair has the same score whoever computes it:
    on a GPU always, with the reference if each holder's first chunk is a multiple of `SCORE_BLOCK`
    among all.
    """
    check_shapes(queries, landmarks, num_visible, query_documents, landmark_documents)
    if runs_triton(impl, queries, unfit_for_triton(queries, landmarks)):
        from gcattn.ops.chunk_topk.triton_select import best_keys, places_of, scores_of

        with torch.cuda.device_of(queries):
            keys = best_keys(
                queries.contiguous(),
                landmarks.contiguous(),
                num_visible.contiguous(),
                None if query_documents is None else query_documents.contiguous(),
                None if landmark_documents is None else landmark_documents.contiguous(),
                None,
                top_k,
                True,
            )
        return BestChunks(places_of(keys), scores_of(keys))
    return best_chunks_reference(
        queries,
        landmarks,
        num_visible,
        query_documents,
        landmark_documents,
        top_k,
        is_scored=True,
        is_noisy=False,
        impl=impl,
    )


def merge_candidates(candidates: Sequence[BestChunks], top_k: int) -> Tensor:
    """Return the best of all candidates, [B, C, K], best first, -1 where there are fewer.

    Args:
        candidates: Of each holder, with indices counted over all holders; holders come in the order
            of their chunks, so equal scores go to the earlier chunk, as from one holder.
        top_k: K.
    """
    indices = torch.cat([own.indices for own in candidates], dim=-1)
    scores = torch.cat([own.scores for own in candidates], dim=-1)
    order = scores.argsort(dim=-1, descending=True, stable=True)[..., :top_k]
    best = indices.gather(-1, order)
    return best.masked_fill(scores.gather(-1, order) == -torch.inf, -1)


def holder_bounds(num_chunks: int, num_holders: int, multiple: int = SCORE_BLOCK) -> list[int]:
    """Return where each holder's chunks begin, and the end: shares as equal as can be.

    Args:
        num_chunks: Chunks of all holders.
        num_holders: Among how many they are divided.
        multiple: What every beginning is a multiple of.
    """
    blocks = -(-num_chunks // multiple)
    return [
        min(blocks * holder // num_holders * multiple, num_chunks)
        for holder in range(num_holders + 1)
    ]
