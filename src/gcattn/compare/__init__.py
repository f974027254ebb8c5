"""Comparisons: models trained on the same rows, measured by position on the same documents."""
