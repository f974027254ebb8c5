"""Confidence intervals of shares, for accuracies of few trials."""

import math
from typing import NamedTuple

Z_95 = 1.959963984540054


class Interval(NamedTuple):
    """Bounds of a share."""

    low: float
    high: float


def wilson_interval(successes: float, trials: int, z: float = Z_95) -> Interval:
    """Return Wilson's score interval, which is valid at 0 and 100 % and for few trials.

    Args:
        successes: Successful trials; a partly successful one counts in part.
        trials: All trials.
        z: Half-width in standard deviations; 95 % by default.

    Raises:
        ValueError: There is no trial, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"Successes must lie between 0 and trials >= 1, got {successes} of {trials}."
        )
    share = successes / trials
    spread = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    centre = share + z * z / (2 * trials)
    scale = 1 + z * z / trials
    # exact at the ends, where rounding would leave 1e-17
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return Interval(low, high)
