"""Scores of few queries on a CPU: as fast as the landmarks arrive.

Shapes: C querying chunks, n chunks of a block, E hidden size.
"""

import torch
from torch import Tensor

from gcattn.ops.native import MAX_INPUT, run_maps, runs_native


def fits_kernel(queries: Tensor, landmarks: Tensor) -> bool:
    """Say whether the kernel takes queries [1, C, E] and landmarks [1, n, E]."""
    fits = len(queries) == 1 and 0 < queries.numel() <= MAX_INPUT and queries.shape[-1] % 2 == 0
    return fits and runs_native(queries.shape[1], queries, landmarks)


def score_natively(queries: Tensor, landmarks: Tensor) -> Tensor:
    """Return the scores in float32, [1, C, n]; see `fits_kernel`."""
    _, C, E = queries.shape
    scores = queries.new_empty((1, C, landmarks.shape[1]), dtype=torch.float32)
    run_maps(queries, [landmarks], [scores], torch.get_num_threads(), scale=E**-0.5)
    return scores
