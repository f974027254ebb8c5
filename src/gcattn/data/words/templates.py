"""Sentences with places for values."""

import re
from collections.abc import Sequence


def fill(text: str, **values: str) -> str:
    """Put values in the places of a sentence; other braces stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)


def joined(items: Sequence[str]) -> str:
    """List items as a sentence does: "a", "a and b", "a, b, and c"."""
    if len(items) < 3:
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"


def word_runs(text: str, length: int) -> set[tuple[str, ...]]:
    """Return every run of `length` words of a sentence, its places not counted as words."""
    runs: set[tuple[str, ...]] = set()
    for piece in re.split(r"\{\w+\}", text.lower()):
        words = re.findall(r"[a-z0-9]+", piece)
        runs |= {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}
    return runs
