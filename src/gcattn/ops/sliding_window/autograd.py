"""The Triton kernels as functions with a gradient, and as operators for calls that are traced.

Triton is imported when an operator runs for the first time, never when gcattn is.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from gcattn.ops.launch import (
    MAX_PLANS,
    Keys,
    apply_untraced,
    keys_of,
    layouts_of,
    make_plan,
    refuse_second_derivative,
    told_apart,
)
from gcattn.ops.registration import operator

Gradients = tuple[Tensor, Tensor, Tensor]


class Kernels:
    """The kernels, prepared for inputs of one layout."""

    def __init__(self, keys: Keys, window_size: int) -> None:
        self._keys, self.window_size = keys, window_size

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        query_documents: Tensor | None,
        key_documents: Tensor | None,
    ) -> Tensor:
        """Return the output; arguments as in `api`."""
        if _needs_gradient(q, k, v):
            attended: Tensor = apply_untraced(
                _Untraced, self, q, k, v, query_documents, key_documents
            )
            return attended
        return self._infer(q, k, v, query_documents, key_documents)

    @cached_property
    def forward(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """Of the inputs: the output and what the backward pass needs."""
        return _forward_plan(self._keys, self.window_size)

    @cached_property
    def _infer(self) -> Callable[..., Tensor]:
        from gcattn.ops.sliding_window.triton_single import plan_single

        if layouts_of(self._keys)[0].shape[1] == 1:
            return make_plan(plan_single, self._keys, (self.window_size,), num_strided=3)
        return lambda *inputs: self.forward(*inputs)[0]


def traced_sliding_window(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window_size: int,
) -> Tensor:
    """Call the operators instead of the kernels; arguments as in `api`, all given."""
    inputs = q, k, v, query_documents, key_documents
    out: Tensor
    if _needs_gradient(q, k, v):
        out = _Traced.apply(*told_apart(inputs), window_size)
    else:
        out = forward_operator(*inputs, window_size)[0]
    return out


def _needs_gradient(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)


class _Untraced(torch.autograd.Function):
    """Forward and backward kernels as one function with a gradient."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, *inputs: Tensor | None) -> Tensor:
        out, lse = kernels.forward(*inputs)
        ctx.window_size = kernels.window_size
        ctx.save_for_backward(*inputs, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("sliding_window_attention")
        inputs = dout, *ctx.saved_tensors
        # hooks on saved tensors may have changed their layouts
        dq, dk, dv = _backward_plan(keys_of(inputs), ctx.window_size)(*inputs)
        return None, dq, dk, dv, None, None


class _Traced(torch.autograd.Function):
    """Forward and backward operators as one function with a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        query_documents: Tensor | None,
        key_documents: Tensor | None,
        window_size: int,
    ) -> Tensor:
        inputs = q, k, v, query_documents, key_documents
        out: Tensor
        out, lse = forward_operator(*inputs, window_size)
        ctx.window_size = window_size
        ctx.save_for_backward(*inputs, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        dq, dk, dv = backward_operator(dout, *ctx.saved_tensors, ctx.window_size)
        return dq, dk, dv, None, None, None


@lru_cache(MAX_PLANS)
def _forward_plan(keys: Keys, *options: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    from gcattn.ops.sliding_window.triton_forward import plan_forward

    return make_plan(plan_forward, keys, options, num_strided=3)


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
    return _forward_plan(keys_of(inputs), window_size)(*inputs)


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
    return _backward_plan(keys_of(inputs), window_size)(*inputs)
