"""The Triton kernels as operators that autograd and torch.compile know.

`torch.compile` sees each operator as one node, so a model compiles without graph breaks; Triton is
imported when an operator runs for the first time, never when gcattn is.
"""

from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("gcattn::grouped_cross_attention", mutates_args=())
def triton_grouped_cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    softmax_off_by_one: bool,
    scale: float,
) -> Tensor:
    """Run the forward kernel; arguments as in `api`, all given."""
    from gcattn.ops.grouped_cross_attention.triton_forward import grouped_cross_attention_forward

    q, k, v = (_with_adjacent_values(x) for x in (q, k, v))
    return grouped_cross_attention_forward(
        q,
        k,
        v,
        chunk_indices.contiguous(),
        chunk_weights.contiguous(),
        chunk_lengths,
        softmax_off_by_one,
        scale,
    )


@torch.library.custom_op("gcattn::grouped_cross_attention_backward", mutates_args=())
def _backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    softmax_off_by_one: bool,
    scale: float,
) -> Gradients:
    from gcattn.ops.grouped_cross_attention.triton_backward import grouped_cross_attention_backward

    dout, q, k, v = (_with_adjacent_values(x) for x in (dout, q, k, v))
    return grouped_cross_attention_backward(
        dout,
        q,
        k,
        v,
        chunk_indices.contiguous(),
        chunk_weights.contiguous(),
        chunk_lengths,
        softmax_off_by_one,
        scale,
    )


@triton_grouped_cross_attention.register_fake
def _(q: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, indices: Tensor, *args: Any) -> Gradients:
    like = (q, k, v, args[0])
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in like)  # type: ignore[return-value]


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.softmax_off_by_one, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    dq, dk, dv, dweights = _backward(dout, *ctx.saved_tensors, ctx.softmax_off_by_one, ctx.scale)
    return dq, dk, dv, None, dweights, None, None, None


triton_grouped_cross_attention.register_autograd(_differentiate, setup_context=_save_inputs)


def _with_adjacent_values(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
