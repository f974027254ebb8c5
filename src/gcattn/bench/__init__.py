"""Benchmarks: operator, prefill, training step and decoding, each beside its peers."""
