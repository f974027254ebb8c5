"""Evaluation of models on long documents, by length and position."""
