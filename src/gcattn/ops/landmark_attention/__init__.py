"""Landmark Attention, a peer of Grouped Cross-Attention: one function, two ways to compute it."""

from gcattn.ops.landmark_attention.api import landmark_attention

__all__ = ["landmark_attention"]
