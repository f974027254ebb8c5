"""Linear maps of one input.

Shapes: n input size, N output size of a map.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcattn.nn.plain_calls import is_called_plainly
from gcattn.ops.launch import is_traced
from gcattn.ops.projections import (
    fits_blocks,
    fits_float32,
    fits_kernel,
    project_few_rows,
    project_in_blocks,
    project_in_float32,
    project_natively,
    shares_a_launch,
)


def project(x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
    """Apply each map to x, [..., n] → [..., N].

    Maps of few rows share a launch if they are what the model was built with; an adapter, a layer
    of 8 bits or a layer with hooks is called.
    """
    if x.is_cpu:
        return _project_on_cpu(x, maps)
    # torch.compile cannot look at hooks, and need not: it fuses what it can itself
    if x.is_cuda and not is_traced((x,)) and all(is_plain_map(part) for part in maps):
        weights = [cast(nn.Linear, part).weight for part in maps]
        if shares_a_launch(x, weights):
            return project_few_rows(x, weights)
    return tuple(part(x) for part in maps)


def _project_on_cpu(x: Tensor, maps: tuple[nn.Module, ...]) -> tuple[Tensor, ...]:
    if not all(_has_plain_weight(part) for part in maps):
        one_by_one = ((part(x),) if len(maps) == 1 else project(x, part) for part in maps)
        return tuple(out for (out,) in one_by_one)
    weights = [cast(nn.Linear, part).weight for part in maps]
    if fits_kernel(x, weights):
        return project_natively(x, weights)
    if fits_float32(x, weights):
        return project_in_float32(x, weights)
    return tuple(
        project_in_blocks(x, weight) if fits_blocks(x, weight) else F.linear(x, weight)
        for weight in weights
    )


def _has_plain_weight(part: nn.Module) -> bool:
    if torch.compiler.is_compiling() or not is_plain_map(part):
        return False
    return type(part.weight) is nn.Parameter  # a quantised or sharded one is not


def is_plain_map(part: nn.Module) -> bool:
    """Say whether a call of a module multiplies by its weight and does nothing else."""
    return type(part) is nn.Linear and part._parameters["bias"] is None and is_called_plainly(part)
