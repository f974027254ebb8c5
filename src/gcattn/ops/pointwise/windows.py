"""Putting the columns of earlier calls before new ones, and keeping the last.

Shapes: B batch, P kept columns, L new columns, P' columns to keep, G key/value heads, D head dim.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan

Pair = tuple[Tensor, Tensor]


def extend_columns(
    kept: Pair | None, new: Pair, num_last: int, *, impl: Impl = "auto"
) -> tuple[Pair, Pair]:
    """Put kept columns before new ones, and take the last of all.

    Args:
        kept: Keys and values of earlier calls, both [B, P, G, D]; None: there are none.
        new: Those of this call, both [B, L, G, D].
        num_last: P', at most P + L.
        impl: "triton" is one launch without a gradient; "auto" takes it where it can.

    Returns:
        All keys and values, [B, P + L, G, D], and the last of both, [B, P', G, D]: copies, which
        do not keep all of a long call alive, or views if all are at most twice as many.
    """
    inputs = new if kept is None else (*new, *kept)
    if runs_fused(impl, inputs, _unfit):
        with torch.cuda.device_of(inputs[0]):
            return _plan(keys_of(inputs), num_last)(*inputs)
    keys, values = new
    if kept is not None:
        keys, values = torch.cat([kept[0], keys], dim=1), torch.cat([kept[1], values], dim=1)
    return (keys, values), (_last(keys, num_last), _last(values, num_last))


def copies_last(num_columns: int, num_last: int) -> bool:
    """Say whether the last columns are copied rather than viewed."""
    return num_columns > 2 * num_last


def _last(x: Tensor, num_last: int) -> Tensor:
    last = x[:, x.shape[1] - num_last :]
    return last.clone() if copies_last(x.shape[1], num_last) else last


def _unfit(*inputs: Tensor) -> str:
    dtypes = {x.dtype for x in inputs}
    if len(dtypes) > 1 or not dtypes <= set(KERNEL_DTYPES):
        return f"takes one dtype of {KERNEL_DTYPES}, got {sorted(map(str, dtypes))}"
    return ""


@lru_cache(MAX_PLANS)
def _plan(keys: Keys, num_last: int) -> Callable[..., tuple[Pair, Pair]]:
    from gcattn.ops.pointwise.triton_windows import plan_extension

    return make_plan(plan_extension, keys, (num_last,), num_strided=0)
