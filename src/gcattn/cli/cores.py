"""How PyTorch's threads wait for each other on a CPU that other processes use too."""

import os
import sys

# under a millisecond, and longer than most gaps between two operators
SPINS = "20000"
_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def share_cores() -> None:
    """Let a thread that waits for another one sleep soon, so that the other gets its core.

    GNU's OpenMP spins 300,000 times first, some ten milliseconds: whenever one of PyTorch's threads
    finds its core taken, an operator of microseconds takes as long as that. It reads the variable
    when PyTorch is imported; if that has happened, or the user has chosen, nothing is changed.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = SPINS
