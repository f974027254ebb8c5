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
    is_joint: bool,
    save_lse: bool,
) -> tuple[Tensor, Tensor]:
    """Run the forward kernel; arguments as in `api`, all given.

    `save_lse` returns beside the output what a backward pass needs.
    """
    from gcattn.ops.grouped_cross_attention.triton_forward import grouped_cross_attention_forward

    q, k, v = (_with_adjacent_values(x) for x in (q, k, v))
    shape = lse_shape(q, k, chunk_indices, is_joint) if save_lse else (0,)
    lse = torch.empty(shape, dtype=torch.float32, device=q.device)
    with torch.cuda.device_of(q):
        out = grouped_cross_attention_forward(
            q,
            k,
            v,
            chunk_indices.contiguous(),
            chunk_weights.contiguous(),
            chunk_lengths,
            lse if save_lse else None,
            sink_logit,
            scale,
            is_joint,
        )
    return out, lse


@torch.library.custom_op("gcattn::grouped_cross_attention_backward", mutates_args=())
def _backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_indices: Tensor,
    chunk_weights: Tensor,
    chunk_lengths: Tensor | None,
    out: Tensor | None,
    lse: Tensor,
    scale: float,
) -> Gradients:
    """Run the backward kernels; the output is given where chunks were mixed jointly."""
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
            out,
            lse,
            scale,
        )


@triton_grouped_cross_attention.register_fake
def _(
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
) -> tuple[Tensor, Tensor]:
    shape = lse_shape(q, k, chunk_indices, is_joint) if save_lse else (0,)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(shape, dtype=torch.float32)


@_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, indices: Tensor, *args: Any) -> Gradients:
    like = (q, k, v, args[0])
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in like)  # type: ignore[return-value]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, _, ctx.scale, is_joint, _ = inputs
    out, lse = output
    ctx.mark_non_differentiable(lse)
    # or autograd would make and fill a gradient of the logarithms, as large as they are
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, out if is_joint else None, lse)


def _differentiate(ctx: Any, dout: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 10
    dq, dk, dv, dweights = _backward(dout, *ctx.saved_tensors, ctx.scale)
    return dq, dk, dv, None, dweights, None, None, None, None, None


triton_grouped_cross_attention.register_autograd(_differentiate, setup_context=_save)


def lse_shape(q: Tensor, k: Tensor, chunk_indices: Tensor, is_joint: bool) -> tuple[int, ...]:
    """Shape of the softmax's denominators: one per row, and per retrieved chunk if separate."""
    B, C, M, H, _ = q.shape
    G, K = k.shape[3], chunk_indices.shape[2]
    return (B, C, *(() if is_joint else (K,)), G, M * (H // G))


def _with_adjacent_values(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
