"""Sliding-window attention: one public function, one file for each way to compute it."""

from gcattn.ops.sliding_window.api import sliding_window_attention

__all__ = ["sliding_window_attention"]
