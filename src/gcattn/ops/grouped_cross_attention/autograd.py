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
    sink_logit: float | None,
    scale: float,
    save_lse: bool,
) -> tuple[Tensor, Tensor]:
    """Run the forward kernel; arguments as in `api`, all given.

    `save_lse` returns beside the output what a backward pass needs.
    """
    from gcattn.ops.grouped_cross_attention.triton_forward import grouped_cross_attention_forward

    q, k, v = (_with_adjacent_values(x) for x in (q, k, v))
    with torch.cuda.device_of(q):
        return grouped_cross_attention_forward(
            q,
            k,
            v,
            chunk_indices.contiguous(),
            chunk_weights.contiguous(),
            chunk_lengths,
            sink_logit,
            scale,
            save_lse,
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
    lse: Tensor,
    scale: float,
) -> Gradients:
    from gcattn.ops.grouped_cross_attention.triton_backward import grouped_cross_attention_backward

    dout, q, k, v = (_with_adjacent_values(x) for x in (dout, q, k, v))
    with torch.cuda.device_of(q):
        return grouped_cross_attention_backward(
            dout,
            q,
            k,
            v,
            chunk_indices.contiguous(),
            chunk_weights.contiguous(),
            chunk_lengths,
            lse,
            scale,
        )


@triton_grouped_cross_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, indices: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    save_lse = kwargs["save_lse"] if "save_lse" in kwargs else args[-1]
    B, C, M, H, _ = q.shape
    G, K = k.shape[3], indices.shape[2]
    shape = (B, C, K, G, M * (H // G)) if save_lse else (0,)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(shape, dtype=torch.float32)


@_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, indices: Tensor, *args: Any) -> Gradients:
    like = (q, k, v, args[0])
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in like)  # type: ignore[return-value]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, _, ctx.scale, _ = inputs
    ctx.mark_non_differentiable(output[1])
    # or autograd would make and fill a gradient of the logarithms, as large as they are
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx: Any, dout: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 9
    dq, dk, dv, dweights = _backward(dout, *ctx.saved_tensors, ctx.scale)
    return dq, dk, dv, None, dweights, None, None, None, None


triton_grouped_cross_attention.register_autograd(_differentiate, setup_context=_save)


def _with_adjacent_values(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
