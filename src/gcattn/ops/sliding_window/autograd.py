"""The Triton kernels as operators that autograd and torch.compile know.

Triton is imported when an operator runs for the first time, never when gcattn is.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gcattn.ops.launch import (
    MAX_PLANS,
    Keys,
    keys_of,
    make_plan,
    refuse_second_derivative,
    told_apart,
)
from gcattn.ops.registration import operator

Gradients = tuple[Tensor, Tensor, Tensor]


def triton_sliding_window(
    keys: Keys | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window_size: int,
) -> Tensor:
    """Run the kernels; arguments as in `api`, all given.

    `keys` are those of the tensors; without them the call goes through the operators, to be traced.
    """
    inputs = q, k, v, query_documents, key_documents
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        given = told_apart(inputs) if keys is None else inputs
        attended: Tensor = _SlidingWindow.apply(keys, *given, window_size)
        return attended
    if keys is not None and q.shape[1] == 1:
        with torch.cuda.device_of(q):
            return _single_plan(keys, window_size)(*inputs)
    return _run_forward(keys, inputs, window_size)[0]


class _SlidingWindow(torch.autograd.Function):
    """Forward and backward kernels as one function with a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        keys: Keys | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        query_documents: Tensor | None,
        key_documents: Tensor | None,
        window_size: int,
    ) -> Tensor:
        inputs = q, k, v, query_documents, key_documents
        out, lse = _run_forward(keys, inputs, window_size)
        ctx.is_traced, ctx.window_size = keys is None, window_size
        ctx.save_for_backward(*inputs, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        if ctx.is_traced:
            dq, dk, dv = backward_operator(dout, *saved, ctx.window_size)
        else:
            refuse_second_derivative("sliding_window_attention")
            # hooks on saved tensors may have changed their layouts
            keys = keys_of((dout, *saved))
            with torch.cuda.device_of(dout):
                dq, dk, dv = _backward_plan(keys, ctx.window_size)(dout, *saved)
        return None, dq, dk, dv, None, None, None


def _run_forward(
    keys: Keys | None, inputs: tuple[Tensor | None, ...], window_size: int
) -> tuple[Tensor, Tensor]:
    if keys is None:
        results: tuple[Tensor, Tensor] = forward_operator(*inputs, window_size)
        return results
    with torch.cuda.device_of(inputs[0]):
        return _forward_plan(keys, window_size)(*inputs)


@lru_cache(MAX_PLANS)
def _forward_plan(keys: Keys, *options: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    from gcattn.ops.sliding_window.triton_forward import plan_forward

    return make_plan(plan_forward, keys, options, num_strided=3)


@lru_cache(MAX_PLANS)
def _single_plan(keys: Keys, *options: Any) -> Callable[..., Tensor]:
    from gcattn.ops.sliding_window.triton_single import plan_single

    return make_plan(plan_single, keys, options, num_strided=3)


@lru_cache(MAX_PLANS)
def _backward_plan(keys: Keys, *options: Any) -> Callable[..., Gradients]:
    from gcattn.ops.sliding_window.triton_backward import plan_backward

    return make_plan(plan_backward, keys, options, num_strided=4)


def _fake_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window_size: int,
) -> tuple[Tensor, Tensor]:
    B, L, H, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((B, H, L), dtype=torch.float32)


@operator("sliding_window", _fake_forward)
def forward_operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window_size: int,
) -> tuple[Tensor, Tensor]:
    """Return the output and what the backward pass needs, [B, H, L]."""
    inputs = q, k, v, query_documents, key_documents
    return _run_forward(keys_of(inputs), inputs, window_size)


def _fake_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    out: Tensor,
    lse: Tensor,
    window_size: int,
) -> Gradients:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


@operator("sliding_window_backward", _fake_backward)
def backward_operator(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    out: Tensor,
    lse: Tensor,
    window_size: int,
) -> Gradients:
    """Return the gradients of q, k and v."""
    inputs = dout, q, k, v, query_documents, key_documents, out, lse
    with torch.cuda.device_of(dout):
        return _backward_plan(keys_of(inputs), window_size)(*inputs)
