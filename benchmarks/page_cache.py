"""What the system remembers of files: without it, a time of reading them is that of the disk."""

import os
from pathlib import Path


def drop_cached_files(folder: Path) -> bool:
    """Let the system forget what it read of a folder's files, at any depth; say whether it can."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)  # it keeps what is not on the disk yet
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
    return True
