"""Writing a column of keys and values into rings.

Shapes: B batch, W columns of a ring, G key/value heads, D head dim.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from gcattn.ops.implementation import Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan
from gcattn.ops.native import run_kernel, runs_native

Pair = tuple[Tensor, Tensor]


def write_columns(rings: Pair, columns: Pair, at: Tensor, *, impl: Impl = "auto") -> None:
    """Write one column of each row into both rings, in place.

    Args:
        rings: Keys and values, both [B, W, G, D], in the dtype of the columns or a wider one.
        columns: The new ones, both [B, 1, G, D].
        at: Where each row's goes, int64 [B].
        impl: "triton" is one launch; "auto" takes it where it can.
    """
    inputs = *columns, at, *rings
    if runs_fused(impl, inputs, _unfit):
        _plan(keys_of(inputs))(*inputs)
        return
    if impl == "auto" and _fits_kernel(rings, columns, at):
        for ring, column in zip(rings, columns, strict=True):
            sizes = len(at), *ring.stride()[:3], *ring.shape[2:]
            run_kernel("write_column", ring.dtype, (ring, column, at, *sizes), [ring])
        return
    rows = torch.arange(len(at), device=at.device)
    for ring, column in zip(rings, columns, strict=True):
        ring[rows, at] = column[:, 0].to(ring.dtype)


def _fits_kernel(rings: Pair, columns: Pair, at: Tensor) -> bool:
    same = all(x.dtype == columns[0].dtype and x.is_cpu and x.stride(-1) == 1 for x in rings)
    return same and at.is_contiguous() and runs_native(len(at), *columns)


def _unfit(keys: Tensor, values: Tensor, at: Tensor, *rings: Tensor) -> str:
    if all(ring.is_contiguous() for ring in rings):
        return ""
    return "writes into contiguous rings only"


@lru_cache(MAX_PLANS)
def _plan(keys: Keys) -> Callable[..., None]:
    from gcattn.ops.pointwise.triton_columns import plan_writing

    return make_plan(plan_writing, keys, (), num_strided=0)
