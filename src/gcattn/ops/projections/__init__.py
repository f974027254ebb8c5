"""Linear maps of few rows, as in decoding: several weights in one launch."""

from gcattn.ops.projections.api import project_few_rows, shares_a_launch

__all__ = ["project_few_rows", "shares_a_launch"]
