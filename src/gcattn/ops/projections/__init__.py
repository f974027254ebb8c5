"""Linear maps of few rows, as in decoding: several weights in one launch, or one in blocks."""

from gcattn.ops.projections.api import project_few_rows, shares_a_launch
from gcattn.ops.projections.blocks import fits_blocks, project_in_blocks

__all__ = ["fits_blocks", "project_few_rows", "project_in_blocks", "shares_a_launch"]
