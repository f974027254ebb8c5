"""The Triton selection as an operator that torch.compile knows.

Triton is imported when the operator runs for the first time, never when gcattn is. The choice is
not differentiable, so it has no backward pass.
"""

import torch
from torch import Tensor

from gcattn.ops.registration import operator


def _fake(
    queries: Tensor,
    landmarks: Tensor,
    num_visible: Tensor,
    query_documents: Tensor | None,
    landmark_documents: Tensor | None,
    seed: Tensor | None,
    top_k: int,
    is_scored: bool,
) -> Tensor:
    B, C, _ = queries.shape
    return queries.new_empty((B, C, top_k), dtype=torch.long)


@operator("select_chunks", _fake)
def triton_select_chunks(
    queries: Tensor,
    landmarks: Tensor,
    num_visible: Tensor,
    query_documents: Tensor | None,
    landmark_documents: Tensor | None,
    seed: Tensor | None,
    top_k: int,
    is_scored: bool,
) -> Tensor:
    """Choose the best visible chunks, [B, C, K]; noise is added where a seed is given."""
    from gcattn.ops.chunk_topk.triton_select import select_chunks

    with torch.cuda.device_of(queries):
        return select_chunks(
            _with_adjacent_values(queries),
            _with_adjacent_values(landmarks),
            num_visible.contiguous(),
            _contiguous(query_documents),
            _contiguous(landmark_documents),
            seed,
            top_k,
            is_scored,
        )


def _with_adjacent_values(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()
