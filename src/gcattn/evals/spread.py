"""A number over several seeds: every value, mean and standard deviation."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any


def mean_and_spread(seeds: Sequence[float]) -> dict[str, Any]:
    """Return every value, the mean, and the standard deviation; None for that of one value."""
    return {
        "seeds": list(seeds),
        "mean": mean(seeds),
        "standard_deviation": stdev(seeds) if len(seeds) > 1 else None,
    }
