"""Putting the columns of earlier calls before new ones, and keeping the last.

Shapes: B batch, P kept columns, L new columns, P' columns to keep, G key/value heads, D head dim.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from gcattn.ops.implementation import KERNEL_DTYPES, Impl, runs_fused
from gcattn.ops.launch import MAX_PLANS, Keys, keys_of, make_plan
from gcattn.ops.pointwise.columns import Pair


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
    num_columns = new[0].shape[1] + (0 if kept is None else kept[0].shape[1])
    is_copied = num_columns > 2 * num_last
    if runs_fused(impl, inputs, _unfit):
        return _plan(keys_of(inputs), num_last, is_copied)(*inputs)
    keys, values = new
    if kept is not None:
        keys, values = torch.cat([kept[0], keys], dim=1), torch.cat([kept[1], values], dim=1)
    last = keys[:, num_columns - num_last :], values[:, num_columns - num_last :]
    return (keys, values), (last[0].clone(), last[1].clone()) if is_copied else last


def _unfit(*inputs: Tensor) -> str:
    dtypes = {x.dtype for x in inputs}
    if len(dtypes) > 1 or not dtypes <= set(KERNEL_DTYPES):
        return f"takes one dtype of {KERNEL_DTYPES}, got {sorted(map(str, dtypes))}"
    return ""


@lru_cache(MAX_PLANS)
def _plan(keys: Keys, num_last: int, is_copied: bool) -> Callable[..., tuple[Pair, Pair]]:
    from gcattn.ops.pointwise.triton_windows import plan_extension

    return make_plan(plan_extension, keys, (num_last, is_copied), num_strided=0)
