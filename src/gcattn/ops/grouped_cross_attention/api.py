"""The public operator: checks what came, then hands it to an implementation (paper, section 3.2).

Shapes: B batch, C chunks, M query slots per chunk, H query heads, G key/value heads, D head dim,
N chunks in the pool, S slots per chunk, K retrieved chunks.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gcattn.ops.grouped_cross_attention.autograd import (
    Kernels,
    traced_grouped_cross_attention,
)
from gcattn.ops.grouped_cross_attention.by_slot import attend_by_slot, reads_by_slot
from gcattn.ops.grouped_cross_attention.reference import grouped_cross_attention_reference
from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_triton
from gcattn.ops.launch import MAX_PLANS, Keys, Layout, is_traced, keys_of, layouts_of

# what one tile of the kernels holds
MAX_CHUNK_SIZE, MAX_HEAD_DIM = 128, 256
Mixing = Literal["separate", "joint"]


def grouped_cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    *,
    chunk_lengths: Tensor | None = None,
    sink_logit: float | None = None,
    scale: float | None = None,
    mixing: Mixing = "separate",
    impl: Impl = "auto",
) -> Tensor:
    """Attend to each retrieved chunk on its own, then mix the results by retrieval weight.

    The weights take part in the forward pass, so the language-model loss trains the retriever.
    A chunk is normalised by itself: how much of it is read is decided by its weight alone, which
    is what lets a model trained on few chunks work with many (paper, section 3.2). With
    `mixing="joint"` the chunks compete in one softmax instead.

    Args:
        q: Queries of every chunk, [B, C, M, H, D].
        k: Pool of chunk keys, [B, N, S, G, D]; H must be a multiple of G.
        v: Pool of chunk values, same shape as `k`.
        chunk_indices: Pool rows to read, [B, C, K]; -1 marks an empty slot.
        chunk_weights: Mixing weights, [B, C, K]; ignored where the slot is empty. Not negative if
            mixing is joint.
        chunk_lengths: Slots in use of each pool chunk, counted from slot 0, [B, N]; all S without
            it.
        sink_logit: Add exp(sink_logit) to each softmax denominator, so that a token may attend to
            nothing: a chunk whose logits all lie well below it gives zero, however much weight the
            retriever gave it. 0 is softmax-off-by-one.
        scale: Factor on the logits; 1 / sqrt(D) without it.
        mixing: "separate" is the paper's, a softmax for each chunk. "joint" is one softmax over the
            slots of all retrieved chunks, the logarithm of a chunk's weight added to its logits,
            and the sink once: a token decides by itself which chunk it reads, the weight is its
            prior.
        impl: "reference" runs on any device; "triton" needs CUDA, at most 32 bits per value,
            S <= 128 and D <= 256 (in float32 not both S > 64 and D > 128), and reads k and v in
            place, from pinned host memory too; "auto" takes "triton" where it can. A named one
            never falls back.

    Returns:
        Mixed output, [B, C, M, H, D], in the dtype of `q`; zero where nothing was retrieved.

    Raises:
        ValueError: A shape, dtype, device or index does not fit the others, or "triton" was asked
            for what it cannot do.
        RuntimeError: "triton" was asked for tensors that are not on a GPU.
    """
    inputs = q, k, v, chunk_indices, chunk_weights, chunk_lengths
    asked = mixing, sink_logit, scale, impl
    if not is_traced(inputs):
        return _prepare(keys_of(inputs), *asked)(*inputs)
    is_fast, options = _check(inputs, *asked)
    if is_fast:
        return traced_grouped_cross_attention(*inputs, **options)
    return _attend_plainly(*inputs, impl=impl, **options)


@lru_cache(MAX_PLANS)
def _prepare(
    keys: Keys, mixing: Mixing, sink_logit: float | None, scale: float | None, impl: Impl
) -> Callable[..., Tensor]:
    """Do for inputs of one layout what the layout decides; returns the output's function."""
    layouts = layouts_of(keys)
    is_fast, options = _check(layouts, mixing, sink_logit, scale, impl)
    attend: Callable[..., Tensor] = partial(_attend_plainly, impl=impl, **options)
    if is_fast:
        attend = Kernels(keys, **options)

    def attend_to_checked(*inputs: Any) -> Tensor:
        _check_values(mixing, *inputs[:5])
        return attend(*inputs)

    is_on_host = any(x is not None and x.device.type == "cpu" for x in layouts)
    return attend_to_checked if is_on_host else attend


def _attend_plainly(*inputs: Any, impl: Impl, **options: Any) -> Tensor:
    """Attend without Triton."""
    if impl == "auto" and reads_by_slot(*inputs[:4]):
        return attend_by_slot(*inputs, **options)
    return grouped_cross_attention_reference(*inputs, **options)


def _check(
    inputs: Sequence[Any],  # tensors or layouts
    mixing: Mixing,
    sink_logit: float | None,
    scale: float | None,
    impl: Impl,
) -> tuple[bool, dict[str, Any]]:
    """Check all that layouts tell; says whether the kernels run, and completes the options."""
    if mixing not in get_args(Mixing):
        raise ValueError(f'mixing must be "separate" or "joint", got {mixing!r}.')
    q, k, v, chunk_indices, chunk_weights, chunk_lengths = inputs
    _check_pool(q, k, v)
    _check_retrieval(q, chunk_indices, chunk_weights)
    if chunk_lengths is not None:
        _check_lengths(k, chunk_lengths)
    is_fast = runs_triton(impl, q, _unfit_for_triton(q, k))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return is_fast, {"sink_logit": sink_logit, "scale": scale, "is_joint": mixing == "joint"}


def _unfit_for_triton(q: Tensor | Layout, k: Tensor | Layout) -> str:
    S, D = k.shape[2], k.shape[4]
    if q.dtype not in KERNEL_DTYPES:
        return f"takes bfloat16, float16 or float32, got {q.dtype}"
    if S > MAX_CHUNK_SIZE or D > MAX_HEAD_DIM:
        return f"takes S <= {MAX_CHUNK_SIZE} and D <= {MAX_HEAD_DIM}, got S = {S} and D = {D}"
    if q.dtype == torch.float32 and S > 64 and D > 128:
        # the tiles of keys and values would not fit a multiprocessor's shared memory
        return f"takes S <= 64 or D <= 128 in float32, got S = {S} and D = {D}"
    return ""


def _check_pool(q: Tensor | Layout, k: Tensor | Layout, v: Tensor | Layout) -> None:
    if len(q.shape) != 5:
        raise ValueError(f"q must have shape [B, C, M, H, D], got {list(q.shape)}.")
    B, _, _, H, D = q.shape
    if len(k.shape) != 5 or k.shape[0] != B or k.shape[4] != D:
        raise ValueError(
            f"k must have shape [B, N, S, G, D] = [{B}, N, S, G, {D}], got {list(k.shape)}."
        )
    if v.shape != k.shape:
        raise ValueError(f"v must have the shape of k, {list(k.shape)}, got {list(v.shape)}.")
    if k.shape[3] == 0 or H % k.shape[3] != 0:
        raise ValueError(
            f"q has {H} heads, which must be a multiple of the {k.shape[3]} heads of k."
        )
    if not q.dtype.is_floating_point:
        raise ValueError(f"q must have a floating-point dtype, got {q.dtype}.")
    for name, x in (("k", k), ("v", v)):
        if x.dtype != q.dtype:
            raise ValueError(f"{name} must have the dtype of q, {q.dtype}, got {x.dtype}.")
        if x.device != q.device and not _reads_from_host(q, x):
            raise _elsewhere(name, q, x)


def _reads_from_host(q: Tensor | Layout, x: Tensor | Layout) -> bool:
    return q.device.type == "cuda" and x.device.type == "cpu"


def _elsewhere(name: str, q: Tensor | Layout, x: Tensor | Layout) -> ValueError:
    return ValueError(f"{name} must be on the device of q, {q.device}, got {x.device}.")


def _check_retrieval(
    q: Tensor | Layout, indices: Tensor | Layout, weights: Tensor | Layout
) -> None:
    B, C = q.shape[:2]
    if len(indices.shape) != 3 or indices.shape[:2] != (B, C):
        raise ValueError(
            f"chunk_indices must have shape [B, C, K] = [{B}, {C}, K], got {list(indices.shape)}."
        )
    if indices.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"chunk_indices must be int32 or int64, got {indices.dtype}.")
    if weights.shape != indices.shape:
        raise ValueError(
            "chunk_weights must have the shape of chunk_indices, "
            f"{list(indices.shape)}, got {list(weights.shape)}."
        )
    if not weights.dtype.is_floating_point:
        raise ValueError(f"chunk_weights must have a floating-point dtype, got {weights.dtype}.")


def _check_lengths(k: Tensor | Layout, lengths: Tensor | Layout) -> None:
    if lengths.shape != k.shape[:2]:
        raise ValueError(
            f"chunk_lengths must have shape [B, N] = {list(k.shape[:2])}, "
            f"got {list(lengths.shape)}."
        )
    if lengths.dtype.is_floating_point or lengths.dtype == torch.bool:
        raise ValueError(f"chunk_lengths must have an integer dtype, got {lengths.dtype}.")


def _check_values(
    mixing: Mixing, q: Tensor, k: Tensor, v: Tensor, indices: Tensor, weights: Tensor
) -> None:
    """Check what only the tensors themselves tell.

    Values are read on the CPU only: it would stall an accelerator.
    """
    for name, x in (("k", k), ("v", v)):
        if x.device != q.device and not x.is_pinned():
            raise _elsewhere(name, q, x)
    if not indices.is_cpu or indices.numel() == 0:
        return
    low, high = int(indices.min()), int(indices.max())
    if low < -1 or high >= k.shape[1]:
        raise ValueError(
            f"chunk_indices of a pool of {k.shape[1]} chunks must be -1 … {k.shape[1] - 1}, "
            f"got {low} … {high}."
        )
    if mixing == "joint":
        lowest = torch.where(indices >= 0, weights, 0).min().item()
        if lowest < 0:
            raise ValueError(
                f'chunk_weights must not be negative with mixing="joint", got {lowest:g}.'
            )
