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
    filled, chosen = indices >= 0, indices.clamp_min(0)
    # in half precision near-equal scores would round together
    with torch.autocast(queries.device.type, enabled=False):
        if min(DENSE_LIMIT, C * K) >= N:
            scores = (queries.to(wide) @ landmarks.to(wide).mT).gather(-1, chosen)
        else:
            rows = torch.arange(B, device=queries.device)[:, None, None]
            read = landmarks[rows, chosen].to(wide)  # [B, C, K, E]
            scores = (queries.to(wide).unsqueeze(2) * read).sum(-1)
        scores = scores * E**-0.5
        # a row with nothing chosen is softmaxed over zeros and emptied afterwards: no NaN in the
        # gradient
        scores = scores.masked_fill(~filled & filled.any(-1, keepdim=True), -torch.inf)
        return torch.where(filled, scores.softmax(-1), 0)
