"""The landmarks of a saved memory, on the model's device.

Shapes: N chunks, Q queries, K chosen chunks, E hidden size.
"""

import torch
from torch import Tensor

from gcattn.ops.chunk_topk.candidates import chunk_candidates
from gcattn.ops.chunk_topk.running_best import BestChunks


class ExactLandmarks:
    """All landmarks as they were written, each scored.

    Args:
        landmarks: [N, E].
        visible: Which chunks may be chosen, bool [N] beside them; None: all.
    """

    def __init__(self, landmarks: Tensor, visible: Tensor | None) -> None:
        self._landmarks = landmarks
        self._visible = visible

    @property
    def may_be_chosen(self) -> Tensor:
        """Which chunks may be chosen, bool [N]."""
        if self._visible is not None:
            return self._visible
        return torch.ones(len(self._landmarks), dtype=torch.bool, device=self._landmarks.device)

    def seeing(self, visible: Tensor | None) -> "ExactLandmarks":
        """Return the same landmarks with another choice of visible chunks."""
        return ExactLandmarks(self._landmarks, visible)

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place."""
        held = self._landmarks.numel() * self._landmarks.element_size()
        return {"host" if self._landmarks.device.type == "cpu" else "device": held}

    def best(self, queries: Tensor, top_k: int) -> BestChunks:
        """Return the K chunks with the best scores for each query [Q, E], and the scores [Q, K]."""
        asked_by = documents = None
        everything = torch.full((1, len(queries)), len(self._landmarks), device=queries.device)
        if self._visible is not None:
            asked_by, documents = torch.ones_like(everything), self._visible.long()[None]
        # as one row: all queries share one read of the landmarks
        best = chunk_candidates(
            queries[None],
            self._landmarks[None],
            everything,
            top_k,
            query_documents=asked_by,
            landmark_documents=documents,
        )
        return BestChunks(best.indices[0], best.scores[0])

    def at(self, numbers: Tensor) -> Tensor:
        """Return the landmarks of chunks, [*numbers.shape, E]."""
        if not len(self._landmarks):
            return self._landmarks.new_zeros(*numbers.shape, self._landmarks.shape[1])
        return self._landmarks[numbers]
