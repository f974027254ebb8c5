"""Which split a key, a value or a number belongs to: a hash of it decides, the same everywhere."""

import hashlib
from typing import Literal, TypeAlias

Split: TypeAlias = Literal["train", "validation"]

# one in this many keys, values and numbers belongs to validation, the others to training
_VALIDATION_SHARE = 4


def split_of(ids: tuple[int, ...]) -> Split:
    """Return the split that a key, a value or a number belongs to."""
    digest = hashlib.blake2b(b"".join(i.to_bytes(8, "little") for i in ids), digest_size=8)
    is_validation = int.from_bytes(digest.digest(), "little") % _VALIDATION_SHARE == 0
    return "validation" if is_validation else "train"


def split_of_text(text: str) -> Split:
    """Return the split that a key or a value written as text belongs to."""
    return split_of(tuple(text.encode()))
