"""The public operator: scores, limit, noise, top-k, weights (paper, section 3.1).

Shapes: B batch, C querying chunks, N past chunks, K retrieved chunks, E hidden size.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from gcattn.ops.chunk_topk.reference import best_chunks_reference
from gcattn.ops.chunk_topk.triton_operator import triton_select_chunks
from gcattn.ops.chunk_topk.weights import weigh_chunks
from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_triton

RetrievalNoise = Literal["gumbel", "none"]
Selection = Literal["learned", "random"]


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
    impl: Impl = "auto",
) -> ChunkSelection:
    """Pick the `top_k` most relevant visible chunks and weigh them by their noise-free scores.

    The relevance of chunk n for chunk c is s_cn = q_c · l_n / sqrt(E), computed in float32 or
    wider: in bfloat16 near-equal scores round together and the order is lost. Gumbel noise changes
    what is chosen, never the weights, so the language-model loss sees the retriever's true opinion.
    Only the scores of the chosen chunks are differentiated. Equal scores go to the earlier chunk.
    Scores of all N chunks at once exist only while B · C · N is small.

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
        impl: How chunks are chosen: "reference" runs on any device; "triton" needs CUDA and at most
            32 bits per value, and draws other noise from the same seed; "auto" takes "triton" where
            it can. A named one never falls back.

    Returns:
        Indices and weights of the chosen chunks, best first.

    Raises:
        ValueError: `top_k` is below 1, a choice is unknown, shapes disagree, or "triton" was asked
            for what it cannot do.
        RuntimeError: "triton" was asked for tensors that are not on a GPU.
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    if noise not in get_args(RetrievalNoise):
        raise ValueError(f'The retrieval_noise must be "gumbel" or "none", got {noise!r}.')
    if selection not in get_args(Selection):
        raise ValueError(f'selection must be "learned" or "random", got {selection!r}.')
    check_shapes(queries, landmarks, num_visible, query_documents, landmark_documents)
    uses_triton = runs_triton(impl, queries, unfit_for_triton(queries, landmarks))
    if queries.shape[1] == 0:  # as for most decoded tokens: nobody asks
        indices = num_visible.new_zeros(queries.shape[0], 0, top_k, dtype=torch.long)
        wide = torch.promote_types(queries.dtype, torch.float32)
        return ChunkSelection(indices, queries.new_zeros(indices.shape, dtype=wide))
    is_scored, is_noisy = selection == "learned", noise == "gumbel" or selection == "random"
    with torch.no_grad():
        if uses_triton:
            # drawn on the device: the host need not wait for it
            seed = None
            if is_noisy:
                seed = torch.randint(0, 2**62, (1,), dtype=torch.long, device=queries.device)
            indices = triton_select_chunks(
                queries,
                landmarks,
                num_visible,
                query_documents,
                landmark_documents,
                seed,
                top_k,
                is_scored,
            )
        else:
            indices, _ = best_chunks_reference(
                queries,
                landmarks,
                num_visible,
                query_documents,
                landmark_documents,
                top_k,
                is_scored,
                is_noisy,
                impl,
            )
    return ChunkSelection(indices, weigh_chunks(queries, landmarks, indices))


def unfit_for_triton(queries: Tensor, landmarks: Tensor) -> str:
    """Say what the kernel cannot do; empty if it can."""
    if queries.dtype in KERNEL_DTYPES and landmarks.dtype in KERNEL_DTYPES:
        return ""
    return f"takes bfloat16, float16 or float32, got {queries.dtype} and {landmarks.dtype}"


def check_shapes(
    queries: Tensor,
    landmarks: Tensor,
    num_visible: Tensor,
    query_documents: Tensor | None,
    landmark_documents: Tensor | None,
) -> None:
    """Refuse arguments whose shapes do not fit each other.

    Raises:
        ValueError: They don't.
    """
    if queries.dim() != 3 or landmarks.dim() != 3 or queries.shape[::2] != landmarks.shape[::2]:
        raise ValueError(
            "queries [B, C, E] and landmarks [B, N, E] must agree in B and E, "
            f"got {list(queries.shape)} and {list(landmarks.shape)}."
        )
    if (query_documents is None) != (landmark_documents is None):
        raise ValueError(
            "query_documents and landmark_documents must be given together, got only one of them."
        )
    for name, found, columns in (
        ("num_visible", num_visible, queries),
        ("query_documents", query_documents, queries),
        ("landmark_documents", landmark_documents, landmarks),
    ):
        if found is not None and found.shape != columns.shape[:2]:
            raise ValueError(
                f"{name} must have shape {list(columns.shape[:2])}, got {list(found.shape)}."
            )
