"""The public operator: checks what came, then hands it to an implementation.

Shapes: B batch, L query columns, P cached columns before them, H query heads, G key/value heads,
D head dim, W window (keys per query, itself included).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_triton
from gcattn.ops.launch import MAX_PLANS, Keys, Layout, is_traced, keys_of, layouts_of
from gcattn.ops.sliding_window.autograd import Kernels, traced_sliding_window
from gcattn.ops.sliding_window.native_single import fits_kernel, native_single
from gcattn.ops.sliding_window.reference import sliding_window_reference

# what one tile of the kernels holds
MAX_HEAD_DIM = 256


def sliding_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window_size: int,
    query_documents: Tensor | None = None,
    key_documents: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Attend to the last `window_size` columns of the same document, the query's own included.

    The cost is linear in L and no [L, L] mask exists. The last query is aligned with the last key.
    Under autocast the inputs are cast as for PyTorch's own attention.

    Args:
        q: Queries, [B, L, H, D].
        k: Keys, [B, P + L, G, D], H a multiple of G.
        v: Values, same shape as `k`.
        window_size: W, at least 1.
        query_documents: Document of each query column, [B, L]; columns see their own document only.
            Unused columns have a document of their own, -1, and a finite output.
        key_documents: Document of each key column, [B, P + L]; given with `query_documents`.
        impl: "reference" runs on any device; "triton" needs CUDA, D <= 256 and at most 32 bits per
            value; "auto" takes "triton" where it can. A named one never falls back.

    Returns:
        Attention output, [B, L, H, D].

    Raises:
        ValueError: A shape, dtype or device does not fit the others, or "triton" was asked for what
            it cannot do.
        RuntimeError: "triton" was asked for tensors that are not on a GPU.
    """
    if q.dtype != torch.float64 and torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    inputs = q, k, v, query_documents, key_documents
    if not is_traced(inputs):
        return _prepare(keys_of(inputs), window_size, impl)(*inputs)
    if _check(inputs, window_size, impl):
        return traced_sliding_window(*inputs, window_size)
    return _attend_plainly(*inputs, window_size=window_size, impl=impl)


@lru_cache(MAX_PLANS)
def _prepare(keys: Keys, window_size: int, impl: Impl) -> Callable[..., Tensor]:
    """Do for inputs of one layout what the layout decides; returns the output's function."""
    if _check(layouts_of(keys), window_size, impl):
        return Kernels(keys, window_size)
    return partial(_attend_plainly, window_size=window_size, impl=impl)


def _attend_plainly(*inputs: Any, window_size: int, impl: Impl) -> Tensor:
    """Attend without Triton."""
    options: dict[str, Any] = {"window_size": window_size}
    if impl == "auto" and fits_kernel(*inputs, **options):
        return native_single(*inputs)
    return sliding_window_reference(*inputs, **options)


def _check(
    inputs: Sequence[Any],  # tensors or layouts
    window_size: int,
    impl: Impl,
) -> bool:
    """Check the inputs and say whether the kernels run."""
    if window_size < 1:
        raise ValueError(f"window_size must be at least 1, got {window_size}.")
    q, k, v, query_documents, key_documents = inputs
    _check_columns(q, k, v)
    _check_documents(q, k, query_documents, key_documents)
    return runs_triton(impl, q, _unfit_for_triton(q))


def _unfit_for_triton(q: Tensor | Layout) -> str:
    if q.dtype not in KERNEL_DTYPES:
        return f"takes bfloat16, float16 or float32, got {q.dtype}"
    if q.shape[-1] > MAX_HEAD_DIM:
        return f"takes D <= {MAX_HEAD_DIM}, got D = {q.shape[-1]}"
    return ""


def _check_columns(q: Tensor | Layout, k: Tensor | Layout, v: Tensor | Layout) -> None:
    if len(q.shape) != 4:
        raise ValueError(f"q must have shape [B, L, H, D], got {list(q.shape)}.")
    B, L, H, D = q.shape
    if len(k.shape) != 4 or k.shape[0] != B or k.shape[3] != D:
        raise ValueError(
            f"k must have shape [B, P + L, G, D] = [{B}, P + {L}, G, {D}], got {list(k.shape)}."
        )
    if k.shape[1] < L:
        raise ValueError(f"k must have at least the {L} columns of q, got {k.shape[1]}.")
    if v.shape != k.shape:
        raise ValueError(f"v must have the shape of k, {list(k.shape)}, got {list(v.shape)}.")
    if k.shape[2] == 0 or H % k.shape[2] != 0:
        raise ValueError(
            f"q has {H} heads, which must be a multiple of the {k.shape[2]} heads of k."
        )
    for name, tensor in (("k", k), ("v", v)):
        if tensor.dtype != q.dtype or tensor.device != q.device:
            raise ValueError(
                f"{name} must have the dtype and device of q, {q.dtype} on {q.device}, "
                f"got {tensor.dtype} on {tensor.device}."
            )


def _check_documents(
    q: Tensor | Layout,
    k: Tensor | Layout,
    query_documents: Tensor | Layout | None,
    key_documents: Tensor | Layout | None,
) -> None:
    if (query_documents is None) != (key_documents is None):
        raise ValueError(
            "query_documents and key_documents must be given together, got only one of them."
        )
    for name, documents, columns in (
        ("query_documents", query_documents, q),
        ("key_documents", key_documents, k),
    ):
        if documents is None:
            continue
        if documents.shape != columns.shape[:2]:
            raise ValueError(
                f"{name} must have shape {list(columns.shape[:2])}, got {list(documents.shape)}."
            )
        if documents.dtype.is_floating_point:
            raise ValueError(f"{name} must have an integer dtype, got {documents.dtype}.")
