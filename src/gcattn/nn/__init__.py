"""Modules: what a DRT is built from. Each file holds one part and names its place in the paper."""
