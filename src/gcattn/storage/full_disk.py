"""A full disk, said in one sentence whichever library ran into it."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
# how libraries in Rust and C++ pass the error on
_IN_WORDS = re.compile(
    r"no space left on device|disk quota exceeded|(os error|code:) (28|122)\b", re.I
)
# torch says that a write failed, not why
_UNEXPLAINED = re.compile(r"PytorchStreamWriter|file write failed|iostream error")
_PROBE_BYTES = 2**20


class DiskFullError(OSError):
    """The disk, or a quota on it, is full."""


@contextmanager
def naming_full_disk(place: str | Path) -> Iterator[None]:
    """Turn whatever a full disk makes libraries raise inside the block into one sentence.

    Args:
        place: The file or folder that is written.

    Raises:
        DiskFullError: The disk is full; any other error passes unchanged.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not _comes_of_full_disk(error, Path(place)):
            raise
        raise DiskFullError(
            f"The disk is full: {place} could not be written; free some space and try again."
        ) from error


def _comes_of_full_disk(error: BaseException, place: Path) -> bool:
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in FULL:
            return True
        if _IN_WORDS.search(str(link)):
            return True
        if _UNEXPLAINED.search(str(link)) and not _has_room(place):
            return True
        link = link.__cause__ or link.__context__
    return False


def _has_room(place: Path) -> bool:
    folder = next(path for path in (place, *place.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.errno not in FULL
    return True
