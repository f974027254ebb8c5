"""What things cost beside their peers, run from a clone: `python -m benchmarks.op` and others."""
