"""Kernels in C for the few columns of a decoded token on a CPU: what Triton's are to a GPU."""

from gcattn.ops.native.calls import (
    MAX_HEAD_DIM,
    has_kernels,
    join_kernels,
    run_kernel,
    runs_native,
    set_recorder,
)
from gcattn.ops.native.maps import MAX_INPUT, MAX_MAPS, run_maps

__all__ = [
    "MAX_HEAD_DIM",
    "MAX_INPUT",
    "MAX_MAPS",
    "has_kernels",
    "join_kernels",
    "run_kernel",
    "run_maps",
    "runs_native",
    "set_recorder",
]
