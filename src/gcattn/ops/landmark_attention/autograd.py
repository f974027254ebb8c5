"""The Triton kernels as operators that autograd and torch.compile know."""

from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor, Tensor, Tensor]


@torch.library.custom_op("gcattn::landmark_attention_forward", mutates_args=())
def triton_landmark_attention(
    q: Tensor, k: Tensor, v: Tensor, chunk_size: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Run the forward kernel; returns beside the output what a backward pass needs, [B, L, H]."""
    from gcattn.ops.landmark_attention.triton_forward import landmark_attention_forward

    with torch.cuda.device_of(q):
        return landmark_attention_forward(
            q.contiguous(), k.contiguous(), v.contiguous(), chunk_size, scale
        )


@torch.library.custom_op("gcattn::landmark_attention_backward", mutates_args=())
def _backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    chunk_size: int,
    scale: float,
) -> Gradients:
    from gcattn.ops.landmark_attention.triton_backward import landmark_attention_backward

    dout, q, k, v = (x.contiguous() for x in (dout, q, k, v))
    with torch.cuda.device_of(q):
        return landmark_attention_backward(dout, q, k, v, out, lse, chunk_size, scale)


@triton_landmark_attention.register_fake
def _(q: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *args: Any) -> Gradients:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.chunk_size, ctx.scale = inputs
    ctx.mark_non_differentiable(output[1])
    # or autograd would make and fill a gradient of the logarithms
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, dout: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 5
    return (*_backward(dout, *ctx.saved_tensors, ctx.chunk_size, ctx.scale), None, None)


triton_landmark_attention.register_autograd(_differentiate, setup_context=_save)
