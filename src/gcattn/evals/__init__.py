"""Evaluation: what a model makes of long documents, by length and position."""
