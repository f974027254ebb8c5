"""Linear maps of one input.

Shapes: n input size, N output size of a map.
"""

from typing import cast

import torch
from torch import Tensor, nn

from gcattn.nn.plain_calls import is_called_plainly
from gcattn.ops.launch import is_traced
from gcattn.ops.projections import (
    fits_blocks,
    fits_kernel,
    project_few_rows,
    project_in_blocks,
    project_natively,
    shares_a_launch,
)


def project(x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
    """Apply each map to x, [..., n] → [..., N].

    Maps of few rows share a launch if they are what the model was built with; an adapter, a layer
    of 8 bits or a layer with hooks is called.
    """
    if x.is_cpu:
        return tuple(_project_on_cpu(x, part) for part in maps)
    # torch.compile cannot look at hooks, and need not: it fuses what it can itself
    if x.is_cuda and not is_traced((x,)) and all(is_plain_map(part) for part in maps):
        weights = [cast(nn.Linear, part).weight for part in maps]
        if shares_a_launch(x, weights):
            return project_few_rows(x, weights)
    return tuple(part(x) for part in maps)


def _project_on_cpu(x: Tensor, part: nn.Module) -> Tensor:
    if not torch.compiler.is_compiling() and is_plain_map(part):
        weight = cast(nn.Linear, part).weight
        if type(weight) is nn.Parameter and fits_kernel(x, weight):
            return project_natively(x, weight)
        if type(weight) is nn.Parameter and fits_blocks(x, weight):
            return project_in_blocks(x, weight)
    out: Tensor = part(x)
    return out


def is_plain_map(part: nn.Module) -> bool:
    """Say whether a call of a module multiplies by its weight and does nothing else."""
    return type(part) is nn.Linear and part._parameters["bias"] is None and is_called_plainly(part)
