"""Choose among shared chunks and a row's own: the best of each, then the best of both.

Shapes: B batch, C querying chunks, N own chunks, K chosen chunks, E hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.memory.chunk_source import Choice
from gcattn.memory.shared_chunks import SharedChunks
from gcattn.ops.chunk_topk import ChunkSelection
from gcattn.ops.chunk_topk.candidates import chunk_candidates, merge_candidates
from gcattn.ops.chunk_topk.running_best import BestChunks
from gcattn.ops.chunk_topk.weights import weigh_read


def choose_with_shared(
    shared: SharedChunks,
    queries: Tensor,
    landmarks: Tensor,
    documents: Tensor,
    num_visible: Tensor,
    choice: Choice,
) -> ChunkSelection:
    """Choose like `chunk_topk`, where shared chunks precede each row's own.

    Args:
        shared: Chunks that every query sees, whatever its document.
        queries: One query per chunk, [B, C, E].
        landmarks: Of own chunks, [B, N, E].
        documents: Of own chunks, [B, N].
        num_visible: Number of chunks visible to each query, [B, C]: all shared ones and some of
            its own, or none.
        choice: How to choose.
    """
    num_shared, K = shared.num_chunks, choice.top_k
    sees = num_visible >= max(num_shared, 1)  # [B, C]
    mine = (num_visible - num_shared).clamp_min(0)
    own_documents = documents if choice.documents is not None else None
    if choice.noise == "none" and choice.selection == "learned":
        theirs = shared.landmarks.best(queries.flatten(0, 1), K)
        candidates = BestChunks(*(x.unflatten(0, queries.shape[:2]) for x in theirs))
        scores = candidates.scores.masked_fill(~sees.unsqueeze(-1), -torch.inf)
        own = chunk_candidates(
            queries,
            landmarks,
            mine,
            K,
            query_documents=choice.documents,
            landmark_documents=own_documents,
        )
        own = BestChunks(own.indices + num_shared, own.scores)
        indices = merge_candidates([BestChunks(candidates.indices, scores), own], K)
    else:
        allowed = torch.arange(landmarks.shape[1], device=mine.device) < mine.unsqueeze(-1)
        if choice.documents is not None:
            allowed &= documents.unsqueeze(1) == choice.documents.unsqueeze(-1)
        allowed = F.pad(allowed, (num_shared, 0))
        allowed[..., :num_shared] = shared.landmarks.may_be_chosen & sees.unsqueeze(-1)
        indices = _by_chance(queries, landmarks, shared, allowed, choice)
    read = shared.landmarks.at(torch.where(indices < num_shared, indices.clamp_min(0), 0))
    if landmarks.shape[1]:
        rows = torch.arange(len(queries), device=queries.device)[:, None, None]
        own_read = landmarks[rows, (indices - num_shared).clamp_min(0)]
        read = torch.where((indices >= num_shared).unsqueeze(-1), own_read, read)
    return ChunkSelection(indices, weigh_read(queries, read, indices >= 0))


def _by_chance(
    queries: Tensor, landmarks: Tensor, shared: SharedChunks, allowed: Tensor, choice: Choice
) -> Tensor:
    """Choose at random by Gumbel noise, added to the scores if they count, [B, C, K]."""
    wide = torch.promote_types(queries.dtype, torch.float32)
    scores = queries.new_zeros(allowed.shape, dtype=wide)
    if choice.selection == "learned":
        theirs = shared.landmarks.at(torch.arange(shared.num_chunks, device=queries.device))
        both = [queries.to(wide) @ x.to(wide).mT for x in (theirs, landmarks)]
        scores = torch.cat(both, dim=-1) * queries.shape[-1] ** -0.5
    exponential = torch.empty_like(scores).exponential_().clamp_min(torch.finfo(wide).tiny)
    scores = (scores - exponential.log()).masked_fill(~allowed, -torch.inf)
    best = scores.topk(min(choice.top_k, scores.shape[-1]), dim=-1)
    indices = best.indices.masked_fill(best.values == -torch.inf, -1)
    return F.pad(indices, (0, choice.top_k - indices.shape[-1]), value=-1)
