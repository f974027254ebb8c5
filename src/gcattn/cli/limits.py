"""Numbers on the command line that can't be meant."""

from typing import TypeVar

import typer

# of whatever is counted: far beyond any memory, and safe in all arithmetic
MOST = 2**40
MOST_SEED = 2**32 - 1
Count = TypeVar("Count", int, None)


def countable(count: Count) -> Count:
    """Refuse what nobody can count: a callback of options, so that no help shows it."""
    if count is not None and count > MOST:
        raise typer.BadParameter(f"must be at most {MOST:,}, got {count:,}.")
    return count


def seedable(seed: int) -> int:
    """Refuse seeds that numpy does not take: a callback of options, so that no help shows it."""
    if seed > MOST_SEED:
        raise typer.BadParameter(f"must be at most {MOST_SEED:,}, got {seed:,}.")
    return seed
