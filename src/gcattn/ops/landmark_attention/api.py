"""The public operator: Landmark Attention (Mohtashami and Jaggi, 2023, section 3.1).

Shapes: B batch, L query columns, P cached columns before them, H query heads, G key/value heads,
D head dim, S columns of a block, its landmark included.
"""

import torch
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_triton
from gcattn.ops.landmark_attention.autograd import triton_landmark_attention
from gcattn.ops.landmark_attention.reference import landmark_attention_reference

# what one tile of the kernels holds
MAX_CHUNK_SIZE, MAX_HEAD_DIM = 64, 128


def landmark_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    chunk_size: int | None = None,
    key_is_landmark: Tensor | None = None,
    key_documents: Tensor | None = None,
    top_k: int | None = None,
    scale: float | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Attend to tokens through the landmarks of their blocks (grouped softmax).

    One softmax goes over the tokens of the query's own block and the landmarks of earlier blocks;
    what a landmark gets is handed on to the tokens of its block, by a softmax among them. The
    values of landmarks are never read. Blocks end with a landmark, which sees the tokens of its
    block and the landmarks before.

    Args:
        q: Queries, [B, L, H, D].
        k: Keys, [B, P + L, G, D], H a multiple of G. The last query is aligned with the last key.
        v: Values, same shape as `k`.
        chunk_size: S: every S-th column is a landmark, from the first one on; P must be 0.
        key_is_landmark: Instead, which columns are, bool [B, P + L].
        key_documents: Document of each key column, [B, P + L]: columns see their own document only.
            Not with `chunk_size`.
        top_k: Earlier blocks that each query of each head reads, those with the best landmarks;
            None: all, as in training.
        scale: Factor on the logits; 1 / sqrt(D) without it.
        impl: "reference" runs on any device; "triton" needs CUDA, `chunk_size` of at most 64 that
            divides L, no `top_k`, D <= 128 and at most 32 bits per value; "auto" takes "triton"
            where it can. A named one never falls back.

    Returns:
        Attention output, [B, L, H, D]; zero where a column sees nothing.

    Raises:
        ValueError: A shape does not fit the others, or "triton" was asked for what it cannot do.
        RuntimeError: "triton" was asked for tensors that are not on a GPU.
    """
    if (chunk_size is None) == (key_is_landmark is None):
        raise ValueError("Pass either chunk_size or key_is_landmark, not both or neither.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, or None for all blocks, got {top_k}.")
    if q.dtype != torch.float64 and torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    _check_shapes(q, k, v, chunk_size, key_is_landmark, key_documents)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    is_fast = runs_triton(impl, q, _unfit_for_triton(q, chunk_size, top_k))
    if is_fast and chunk_size is not None:
        return triton_landmark_attention(q, k, v, chunk_size, scale)[0]
    if key_is_landmark is None:
        assert chunk_size is not None
        column = torch.arange(k.shape[1], device=k.device)
        key_is_landmark = (column % chunk_size == chunk_size - 1).expand(len(k), -1)
    return landmark_attention_reference(q, k, v, key_is_landmark, key_documents, top_k, scale)


def _unfit_for_triton(q: Tensor, chunk_size: int | None, top_k: int | None) -> str:
    """Say what the kernels cannot do; nothing if they can."""
    if chunk_size is None or q.shape[1] % chunk_size:
        return "needs a chunk_size that divides L"
    if top_k is not None:
        return "reads all blocks, it has no top_k"
    if chunk_size > MAX_CHUNK_SIZE or q.shape[-1] > MAX_HEAD_DIM:
        return (
            f"takes chunk_size <= {MAX_CHUNK_SIZE} and D <= {MAX_HEAD_DIM}, "
            f"got {chunk_size} and {q.shape[-1]}"
        )
    if q.dtype not in KERNEL_DTYPES:
        return f"takes bfloat16, float16 or float32, got {q.dtype}"
    return ""


def _check_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_size: int | None,
    key_is_landmark: Tensor | None,
    key_documents: Tensor | None,
) -> None:
    if q.dim() != 4:
        raise ValueError(f"q must have shape [B, L, H, D], got {list(q.shape)}.")
    B, L, H, D = q.shape
    if k.dim() != 4 or k.shape[0] != B or k.shape[3] != D or k.shape[1] < L:
        raise ValueError(
            f"k must have shape [B, P + L, G, D] = [{B}, P + {L}, G, {D}], got {list(k.shape)}."
        )
    if v.shape != k.shape:
        raise ValueError(f"v must have the shape of k, {list(k.shape)}, got {list(v.shape)}.")
    if k.shape[2] == 0 or H % k.shape[2]:
        raise ValueError(
            f"q has {H} heads, which must be a multiple of the {k.shape[2]} heads of k."
        )
    if chunk_size is not None and (chunk_size < 2 or k.shape[1] != L or key_documents is not None):
        raise ValueError(
            "chunk_size must be at least 2, and needs keys of the same columns as the queries and "
            f"no key_documents; got {chunk_size}, {k.shape[1]} keys and {L} queries."
        )
    for name, x in (("key_is_landmark", key_is_landmark), ("key_documents", key_documents)):
        if x is not None and x.shape != k.shape[:2]:
            raise ValueError(
                f"{name} must have shape [B, P + L] = {list(k.shape[:2])}, got {list(x.shape)}."
            )
