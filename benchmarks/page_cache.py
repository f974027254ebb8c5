"""What the system remembers of files: without it, a time of reading them is that of the disk."""

import os
from pathlib import Path

# of these the files are the cache itself
IN_MEMORY = ("tmpfs", "ramfs")
MOUNTS = Path("/proc/self/mounts")


def drop_cached_files(folder: Path) -> bool:
    """Let the system forget what it read of a folder's files, at any depth; say whether it can."""
    if not hasattr(os, "posix_fadvise") or _is_in_memory(folder):
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


def _is_in_memory(folder: Path, mounts: Path = MOUNTS) -> bool:
    """Return whether a folder's file system is kept in memory, where there is a list of mounts."""
    if not mounts.is_file():
        return False
    place = folder.resolve()
    kinds = {}
    for line in mounts.read_text(encoding="utf-8").splitlines():
        _, at, kind, *_ = line.split(" ")
        kinds[Path(at.replace("\\040", " "))] = kind  # of two at one place, the later one counts
    over = [at for at in kinds if place.is_relative_to(at)]
    return kinds[max(over, key=lambda at: len(at.parts))] in IN_MEMORY
