"""The kernels as operators that PyTorch knows: `torch.compile` sees one node for each.

An operator of this file has no gradient: a `torch.autograd.Function` calls one on the way forward
and another on the way back. `torch.library.custom_op` would offer both at once, for twice the
time on the host.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

_LIBRARY = torch.library.Library("gcattn", "FRAGMENT")


def operator(name: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], OpOverload]:
    """Register a function as the operator `gcattn::name`; it changes none of its arguments.

    Args:
        name: Of the operator.
        fake: Takes the same arguments and returns empty tensors of the right shapes.
    """

    def register(function: Callable[..., Any]) -> OpOverload:
        schema = torch.library.infer_schema(function, mutates_args=())
        _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"gcattn::{name}", fake, lib=_LIBRARY)
        overload: OpOverload = getattr(torch.ops.gcattn, name).default
        return overload

    return register
