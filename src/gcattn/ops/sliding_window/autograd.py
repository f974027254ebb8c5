"""The Triton kernels as operators that autograd and torch.compile know.

`torch.compile` sees each operator as one node, so a model compiles without graph breaks; Triton is
imported when an operator runs for the first time, never when gcattn is.
"""

from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor, Tensor, Tensor]


@torch.library.custom_op("gcattn::sliding_window_forward", mutates_args=())
def triton_sliding_window(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window_size: int,
) -> tuple[Tensor, Tensor]:
    """Run the forward kernel; arguments as in `api`, all given.

    Returns beside the output what a backward pass needs, [B, H, L].
    """
    from gcattn.ops.sliding_window.triton_forward import sliding_window_forward

    q, k, v = (_with_adjacent_values(x) for x in (q, k, v))
    with torch.cuda.device_of(q):
        return sliding_window_forward(
            q, k, v, _contiguous(query_documents), _contiguous(key_documents), window_size
        )


@torch.library.custom_op("gcattn::sliding_window_backward", mutates_args=())
def _backward(
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
    from gcattn.ops.sliding_window.triton_backward import sliding_window_backward

    dout, q, k, v = (_with_adjacent_values(x) for x in (dout, q, k, v))
    with torch.cuda.device_of(q):
        return sliding_window_backward(
            dout,
            q,
            k,
            v,
            _contiguous(query_documents),
            _contiguous(key_documents),
            out,
            lse,
            window_size,
        )


@triton_sliding_window.register_fake
def _(q: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    B, L, H, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((B, H, L), dtype=torch.float32)


@_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Gradients:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.window_size = inputs
    ctx.mark_non_differentiable(output[1])
    # or autograd would make and fill a gradient of the logarithms
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, dout: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 6
    return (*_backward(dout, *ctx.saved_tensors, ctx.window_size), None, None, None)


triton_sliding_window.register_autograd(_differentiate, setup_context=_save)


def _with_adjacent_values(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()
