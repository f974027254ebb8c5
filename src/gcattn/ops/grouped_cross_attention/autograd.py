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
    layouts_of,
    make_plan,
    refuse_second_derivative,
    told_apart,
)
from gcattn.ops.registration import operator

Results = tuple[Tensor, Tensor | None, Tensor | None]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


def triton_grouped_cross_attention(
    keys: Keys | None,
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
    """Run the kernels; arguments as in `api`, all given.

    `keys` are those of the tensors; without them the call goes through the operators, to be traced.
    """
    inputs = q, k, v, chunk_indices, chunk_weights, chunk_lengths
    options = sink_logit, scale, is_joint
    if torch.is_grad_enabled() and (
        q.requires_grad or k.requires_grad or v.requires_grad or chunk_weights.requires_grad
    ):
        given = told_apart(inputs) if keys is None else inputs
        attended: Tensor = _GroupedCrossAttention.apply(keys, *given, *options)
        return attended
    if keys is not None:
        with torch.cuda.device_of(q):
            return _inference_plan(keys, *options)(*inputs)
    out: Tensor = _run_forward(keys, inputs, *options, False)[0]
    return out


class _GroupedCrossAttention(torch.autograd.Function):
    """Forward and backward kernels as one function with a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        keys: Keys | None,
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
        out, lse, counts = _run_forward(keys, inputs, sink_logit, scale, is_joint, True)
        ctx.is_traced, ctx.scale = keys is None, scale
        ctx.save_for_backward(*inputs, out if is_joint else None, lse, counts)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        if ctx.is_traced:
            dq, dk, dv, dweights = backward_operator(dout, *saved, ctx.scale)
        else:
            refuse_second_derivative("grouped_cross_attention")
            # hooks on saved tensors may have changed their layouts
            keys = keys_of((dout, *saved))
            with torch.cuda.device_of(dout):
                dq, dk, dv, dweights = _backward_plan(keys, ctx.scale)(dout, *saved)
        return None, dq, dk, dv, None, dweights, None, None, None, None


def _run_forward(
    keys: Keys | None,
    inputs: tuple[Tensor | None, ...],
    sink_logit: float | None,
    scale: float,
    is_joint: bool,
    save_lse: bool,
) -> Results:
    if keys is None:
        results: Results = forward_operator(*inputs, sink_logit, scale, is_joint, save_lse)
        return results
    with torch.cuda.device_of(inputs[0]):
        return _forward_plan(keys, sink_logit, scale, is_joint, save_lse)(*inputs)


@lru_cache(MAX_PLANS)
def _inference_plan(keys: Keys, *options: Any) -> Callable[..., Tensor]:
    from gcattn.ops.grouped_cross_attention.triton_single import fits_single, plan_single

    q, k, _, chunk_indices, *_ = layouts_of(keys)
    if fits_single(q, k, chunk_indices):
        return make_plan(plan_single, keys, options, num_strided=3)
    forward = _forward_plan(keys, *options, False)
    return lambda *inputs: forward(*inputs)[0]


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
    out, lse, counts = _run_forward(keys_of(inputs), inputs, sink_logit, scale, is_joint, save_lse)
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
    with torch.cuda.device_of(dout):
        return _backward_plan(keys_of(inputs), scale)(*inputs)
