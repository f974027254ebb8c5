"""The retrieval weights: softmax of the noise-free scores of the chosen chunks.

Shapes: B batch, C querying chunks, N past chunks, K retrieved chunks, E hidden size.
"""

import torch
from torch import Tensor

# past chunks for which all scores are computed at once, [B, C, N]
DENSE_LIMIT = 8192


def weigh_chunks(queries: Tensor, landmarks: Tensor, indices: Tensor) -> Tensor:
    """Weigh the chosen chunks [B, C, K] by the softmax of their scores; differentiable.

    Where the queries chose more rows than there are, all scores are one matrix product, whose
    gradient needs no scattered sum of landmarks; else only the chosen landmarks are read.
    """
    B, C, E = queries.shape
    N, K = landmarks.shape[1], indices.shape[2]
    wide = torch.promote_types(queries.dtype, torch.float32)
    if N == 0:
        return queries.new_zeros(indices.shape, dtype=wide)
    chosen = indices.clamp_min(0)
    if min(DENSE_LIMIT, C * K) < N:
        rows = torch.arange(B, device=queries.device)[:, None, None]
        return weigh_read(queries, landmarks[rows, chosen], indices >= 0)
    # in half precision near-equal scores would round together
    with torch.autocast(queries.device.type, enabled=False):
        scores = (queries.to(wide) @ landmarks.to(wide).mT).gather(-1, chosen)
        return _softmax(scores * E**-0.5, indices >= 0)


def weigh_read(queries: Tensor, landmarks: Tensor, filled: Tensor) -> Tensor:
    """Weigh chunks by landmarks that were read for each of them, [B, C, K, E].

    Args:
        queries: One query per chunk, [B, C, E].
        landmarks: Landmark of each chosen chunk; anything where the slot is empty.
        filled: Whether there is a chunk, bool [B, C, K].
    """
    wide = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        scores = (queries.to(wide).unsqueeze(2) * landmarks.to(wide)).sum(-1)
        return _softmax(scores * queries.shape[-1] ** -0.5, filled)


def _softmax(scores: Tensor, filled: Tensor) -> Tensor:
    # not minus infinity: a row with nothing chosen would have NaN for a gradient
    empty, lowest = ~filled, torch.finfo(scores.dtype).min
    return scores.masked_fill(empty, lowest).softmax(-1).masked_fill(empty, 0)
