"""Grouped Cross-Attention: one public function, one file for each way to compute it."""

from gcattn.ops.grouped_cross_attention.api import Mixing, grouped_cross_attention
from gcattn.ops.grouped_cross_attention.in_order import read_in_order

__all__ = ["Mixing", "grouped_cross_attention", "read_in_order"]
