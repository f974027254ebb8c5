"""Linear maps of few rows, as in decoding: several weights in one launch, or one in blocks."""

from gcattn.ops.projections.api import project_few_rows, shares_a_launch
from gcattn.ops.projections.blocks import fits_blocks, project_in_blocks
from gcattn.ops.projections.float32 import fits_float32, project_in_float32
from gcattn.ops.projections.native_few_rows import fits_kernel, project_natively

__all__ = [
    "fits_blocks",
    "fits_float32",
    "fits_kernel",
    "project_few_rows",
    "project_in_blocks",
    "project_in_float32",
    "project_natively",
    "shares_a_launch",
]
