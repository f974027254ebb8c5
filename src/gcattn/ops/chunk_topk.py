"""Choose which past chunks each chunk reads: scores, limit, noise, top-k, weights (paper, 3.1).

Shapes: B batch, C querying chunks, N past chunks, K retrieved chunks, E hidden size.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

RetrievalNoise = Literal["gumbel", "none"]
Selection = Literal["learned", "random"]

# past chunks scored at once: bounds the scores held in memory at [B, C, 8192]
SCORE_BLOCK = 8192


class ChunkSelection(NamedTuple):
    """The chunks that were chosen, best first."""

    indices: Tensor  # [B, C, K], -1 where there were fewer than K
    weights: Tensor  # [B, C, K], softmax over the chosen, 0 where the slot is empty


def chunk_topk(
    queries: Tensor,
    landmarks: Tensor,
    num_visible: Tensor,
    top_k: int,
    *,
    query_documents: Tensor | None = None,
    landmark_documents: Tensor | None = None,
    noise: RetrievalNoise = "none",
    selection: Selection = "learned",
) -> ChunkSelection:
    """Pick the `top_k` most relevant visible chunks and weigh them by their noise-free scores.

    The relevance of chunk n for chunk c is s_cn = q_c · l_n / sqrt(E), computed in float32 or
    wider: in bfloat16 near-equal scores round together and the order is lost. Gumbel noise changes
        what is
    chosen, never the weights, so the language-model loss sees the retriever's true opinion. Only
    the scores of the chosen chunks are differentiated. Equal scores go to the earlier chunk.

    Args:
        queries: One query per chunk, [B, C, E].
        landmarks: One landmark per past chunk, [B, N, E].
        num_visible: Chunk c may choose among the first `num_visible` landmarks, [B, C].
        top_k: K, at least 1.
        query_documents: Document of each query, [B, C]; with `landmark_documents` only chunks of
            the same document are visible.
        landmark_documents: Document of each landmark, [B, N].
        noise: "gumbel" adds Gumbel(0, 1) noise to the scores before choosing.
        selection: "random" chooses uniformly among the visible chunks (the paper's ablation).

    Returns:
        Indices and weights of the chosen chunks, best first.

    Raises:
        ValueError: `top_k` is below 1, the noise is unknown or shapes disagree.
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    if noise not in get_args(RetrievalNoise):
        raise ValueError(f'The retrieval_noise must be "gumbel" or "none", got {noise!r}.')
    if queries.dim() != 3 or landmarks.dim() != 3 or queries.shape[::2] != landmarks.shape[::2]:
        raise ValueError(
            "queries [B, C, E] and landmarks [B, N, E] must agree in B and E, "
            f"got {list(queries.shape)} and {list(landmarks.shape)}."
        )
    with torch.no_grad():
        indices = _select(
            queries,
            landmarks,
            num_visible,
            top_k,
            query_documents,
            landmark_documents,
            noise,
            selection,
        )
    return ChunkSelection(indices, _weigh(queries, landmarks, indices))


def _select(
    queries: Tensor,
    landmarks: Tensor,
    num_visible: Tensor,
    top_k: int,
    query_documents: Tensor | None,
    landmark_documents: Tensor | None,
    noise: RetrievalNoise,
    selection: Selection,
) -> Tensor:
    B, C, _ = queries.shape
    wide = torch.promote_types(queries.dtype, torch.float32)
    best_scores = queries.new_full((B, C, top_k), -torch.inf, dtype=wide)
    best_indices = torch.full((B, C, top_k), -1, dtype=torch.long, device=queries.device)
    for start in range(0, landmarks.shape[1], SCORE_BLOCK):
        block = landmarks[:, start : start + SCORE_BLOCK]
        indices = torch.arange(start, start + block.shape[1], device=queries.device)
        if selection == "random":
            scores = _gumbel((B, C, block.shape[1]), wide, queries.device)
        else:
            with torch.autocast(queries.device.type, enabled=False):
                scores = queries.to(wide) @ block.to(wide).mT * _scale(queries)  # [B, C, n]
            if noise == "gumbel":
                scores = scores + _gumbel(scores.shape, wide, queries.device)
        visible = indices < num_visible.unsqueeze(-1)
        if query_documents is not None and landmark_documents is not None:
            documents = landmark_documents[:, None, start : start + SCORE_BLOCK]
            visible = visible & (documents == query_documents.unsqueeze(-1))
        scores = torch.cat([best_scores, scores.masked_fill(~visible, -torch.inf)], dim=-1)
        indices = torch.cat([best_indices, indices.expand(B, C, -1)], dim=-1)
        # a stable sort, unlike topk, gives equal scores to the earlier chunk on every device
        order = scores.argsort(dim=-1, descending=True, stable=True)[..., :top_k]
        best_scores, best_indices = scores.gather(-1, order), indices.gather(-1, order)
    return best_indices.masked_fill(best_scores == -torch.inf, -1)


def _weigh(queries: Tensor, landmarks: Tensor, indices: Tensor) -> Tensor:
    """Softmax of the noise-free scores of the chosen chunks, [B, C, K]."""
    wide = torch.promote_types(queries.dtype, torch.float32)
    filled = indices >= 0
    if landmarks.shape[1] == 0:
        return queries.new_zeros(indices.shape, dtype=wide)
    rows = torch.arange(queries.shape[0], device=queries.device)[:, None, None]
    chosen = landmarks[rows, indices.clamp_min(0)]  # [B, C, K, E]
    scores = (queries.to(wide).unsqueeze(2) * chosen.to(wide)).sum(-1) * _scale(queries)
    # a row with nothing chosen is softmaxed over zeros and emptied afterwards: no NaN in the
    # gradient
    scores = scores.masked_fill(~filled & filled.any(-1, keepdim=True), -torch.inf)
    return torch.where(filled, scores.softmax(-1), 0)


def _scale(queries: Tensor) -> float:
    return float(queries.shape[-1]) ** -0.5


def _gumbel(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    exponential = torch.empty(shape, dtype=dtype, device=device).exponential_()
    return -exponential.clamp_min(torch.finfo(dtype).tiny).log()
