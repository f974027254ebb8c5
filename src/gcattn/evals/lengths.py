"""Context lengths in short form: "1k,4k,16k", and "16k" for 16,384."""

import re

MULTIPLES = {"": 1, "k": 1024, "m": 1024**2}
# far beyond any memory: a typo
MOST_TOKENS = 2**40


def parse_lengths(text: str) -> list[int]:
    """Read a comma-separated list of lengths in tokens, k for 1024 and m for 1024 x 1024.

    Returns:
        The lengths in ascending order.

    Raises:
        ValueError: The text is no such list, or a length is below 2, above 2^40 or given twice.
    """
    lengths = [_parse_length(part) for part in text.split(",")]
    if len(set(lengths)) < len(lengths):
        raise ValueError(f"Lengths must differ, got {text!r}.")
    return sorted(lengths)


def format_length(length: int) -> str:
    """Format a length in tokens, exactly: 16k for 16,384 and 1000 for 1,000."""
    for suffix, multiple in reversed(MULTIPLES.items()):
        if length >= multiple and length % multiple == 0:
            return f"{length // multiple}{suffix}"
    raise ValueError(f"A length must be positive, got {length}.")


def _parse_length(text: str) -> int:
    shown = repr(text if len(text) <= 40 else text[:40] + "…")
    match = re.fullmatch(r"\s*([0-9]+)([km]?)\s*", text.lower())
    if match is None:
        raise ValueError(f"A length must look like 500, 4k or 1m, got {shown}.")
    # int() refuses more digits with another message
    length = int(match[1][:20]) * MULTIPLES[match[2]]
    if len(match[1]) > 20 or length > MOST_TOKENS:
        raise ValueError(f"A length must be at most {MOST_TOKENS:,} tokens, got {shown}.")
    if length < 2:
        raise ValueError(f"A length must be at least 2 tokens, got {text.strip()!r}.")
    return length
