"""What anyone new to the method tries first, run from a clone: `python -m experiments.demo`."""
