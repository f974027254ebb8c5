"""The tables of README and docs, made of the studies: `python -m results.tables`."""
