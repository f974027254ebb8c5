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

Results = tuple[Tensor, Tensor | None, Tensor | None]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


class Kernels:
    """The kernels, prepared for inputs of one layout; options as in `api`, all given."""

    def __init__(self, keys: Keys, sink_logit: float | None, scale: float, is_joint: bool) -> None:
        self._keys, self._options = keys, (sink_logit, scale, is_joint)
        self.scale, self.is_joint = scale, is_joint

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        chunk_indices: Tensor,
        chunk_weights: Tensor,
        chunk_lengths: Tensor | None,
    ) -> Tensor:
        """Return the output; arguments as in `api`."""
        inputs = q, k, v, chunk_indices, chunk_weights, chunk_lengths
        if _needs_gradient(q, k, v, chunk_weights):
            attended: Tensor = apply_untraced(_Untraced, self, *inputs)
            return attended
        return self._infer(*inputs)

    @cached_property
    def forward(self) -> Callable[..., Results]:
        """Of the inputs: the output and what the backward pass needs."""
        return _forward_plan(self._keys, *self._options, True)

    @cached_property
    def _infer(self) -> Callable[..., Tensor]:
        from gcattn.ops.grouped_cross_attention.triton_single import fits_single, plan_single

        q, k, _, chunk_indices, *_ = layouts_of(self._keys)
        if fits_single(q, k, chunk_indices):
            return make_plan(plan_single, self._keys, self._options, num_strided=3)
        forward = _forward_plan(self._keys, *self._options, False)
        return lambda *inputs: forward(*inputs)[0]


def traced_grouped_cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    sink_logit: float | None,
    scale: float,
    is_joint: bool,
) -> Tensor:
    """Call the operators instead of the kernels; arguments as in `api`, all given."""
    inputs = q, k, v, chunk_indices, chunk_weights, chunk_lengths
    options = sink_logit, scale, is_joint
    out: Tensor
    if _needs_gradient(q, k, v, chunk_weights):
        out = _Traced.apply(*told_apart(inputs), *options)
    else:
        out = forward_operator(*inputs, *options, False)[0]
    return out


def _needs_gradient(q: Tensor, k: Tensor, v: Tensor, chunk_weights: Tensor) -> bool:
    return torch.is_grad_enabled() and (
        q.requires_grad or k.requires_grad or v.requires_grad or chunk_weights.requires_grad
    )


class _Untraced(torch.autograd.Function):
    """Forward and backward kernels as one function with a gradient."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, *inputs: Tensor | None) -> Tensor:
        out, lse, counts = kernels.forward(*inputs)
        ctx.scale = kernels.scale
        ctx.save_for_backward(*inputs, out if kernels.is_joint else None, lse, counts)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("grouped_cross_attention")
        inputs = dout, *ctx.saved_tensors
        # hooks on saved tensors may have changed their layouts
        dq, dk, dv, dweights = _backward_plan(keys_of(inputs), ctx.scale)(*inputs)
        return None, dq, dk, dv, None, dweights, None


class _Traced(torch.autograd.Function):
    """Forward and backward operators as one function with a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        chunk_indices: Tensor,
        chunk_weights: Tensor,
        chunk_lengths: Tensor | None,
        sink_logit: float | None,
        scale: float,
        is_joint: bool,
    ) -> Tensor:
        inputs = q, k, v, chunk_indices, chunk_weights, chunk_lengths
        out: Tensor
        out, lse, counts = forward_operator(*inputs, sink_logit, scale, is_joint, True)
        ctx.scale = scale
        ctx.save_for_backward(*inputs, out if is_joint else None, lse, counts)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        dq, dk, dv, dweights = backward_operator(dout, *ctx.saved_tensors, ctx.scale)
        return dq, dk, dv, None, dweights, None, None, None, None


@lru_cache(MAX_PLANS)
def _forward_plan(keys: Keys, *options: Any) -> Callable[..., Results]:
    from gcattn.ops.grouped_cross_attention.triton_forward import plan_forward

    return make_plan(plan_forward, keys, options, num_strided=3)


@lru_cache(MAX_PLANS)
def _backward_plan(keys: Keys, *options: Any) -> Callable[..., Gradients]:
    from gcattn.ops.grouped_cross_attention.triton_backward import plan_backward

    return make_plan(plan_backward, keys, options, num_strided=4)


def _fake_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    sink_logit: float | None,
    scale: float,
    is_joint: bool,
    save_lse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    B, C, M, H, _ = q.shape
    G, K = k.shape[3], chunk_indices.shape[2]
    per_row = (B, C, G, M * (H // G)) if is_joint else (B, C, K, G, M * (H // G))
    lse = q.new_empty(per_row if save_lse else (0,), dtype=torch.float32)
    counts = q.new_empty(k.shape[:2] if save_lse else (0,), dtype=torch.int32)
    return q.new_empty(q.shape), lse, counts


@operator("grouped_cross_attention", _fake_forward)
def forward_operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    sink_logit: float | None,
    scale: float,
    is_joint: bool,
    save_lse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output and what the backward pass needs: two tensors, empty if not asked for."""
    inputs = q, k, v, chunk_indices, chunk_weights, chunk_lengths
    plan = _forward_plan(keys_of(inputs), sink_logit, scale, is_joint, save_lse)
    out, lse, counts = plan(*inputs)
    if lse is None or counts is None:
        return out, q.new_empty(0, dtype=torch.float32), q.new_empty(0, dtype=torch.int32)
    return out, lse, counts


def _fake_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    out: Tensor | None,
    lse: Tensor,
    counts: Tensor,
    scale: float,
) -> Gradients:
    dq, dk, dv, dweights = (x.new_empty(x.shape) for x in (q, k, v, chunk_weights))
    return dq, dk, dv, dweights


@operator("grouped_cross_attention_backward", _fake_backward)
def backward_operator(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    out: Tensor | None,
    lse: Tensor,
    counts: Tensor,
    scale: float,
) -> Gradients:
    """Return the gradients; the output is given where chunks were mixed jointly."""
    inputs = dout, q, k, v, chunk_indices, chunk_weights, chunk_lengths, out, lse, counts
    return _backward_plan(keys_of(inputs), scale)(*inputs)
