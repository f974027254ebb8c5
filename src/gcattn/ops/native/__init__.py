"""Kernels in C for the few columns of a decoded token on a CPU: what Triton's are to a GPU."""

from gcattn.ops.native.calls import (
    MAX_HEAD_DIM,
    MAX_INPUT,
    has_kernels,
    join_kernels,
    run_kernel,
    runs_native,
    set_recorder,
)

__all__ = [
    "MAX_HEAD_DIM",
    "MAX_INPUT",
    "has_kernels",
    "join_kernels",
    "run_kernel",
    "runs_native",
    "set_recorder",
]
