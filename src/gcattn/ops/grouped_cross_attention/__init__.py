"""Grouped Cross-Attention: one public function, one file for each way to compute it."""

from gcattn.ops.grouped_cross_attention.api import Mixing, grouped_cross_attention

__all__ = ["Mixing", "grouped_cross_attention"]
