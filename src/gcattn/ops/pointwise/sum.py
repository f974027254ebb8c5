"""A sum of two tensors: what a residual stream does with a branch.

Shapes: any.
"""

from torch import Tensor

from gcattn.ops.native import run_kernel, runs_native


def add(x: Tensor, added: Tensor) -> Tensor:
    """Return x + added; for few columns on a CPU it is a kernel like those around it."""
    if x.shape != added.shape or not runs_native(x.shape[:-1].numel(), x, added):
        return x + added
    out = x.new_empty(x.shape)
    run_kernel("add", x.dtype, (x, added, out, x.numel()), [out])
    return out
