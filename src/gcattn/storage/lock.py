"""One writer at a time: a lock on a folder that ends with the process that holds it."""

import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_FILE = ".lock"


class FolderInUseError(ValueError):
    """Another process writes into the folder."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into `folder` inside the block; made if it is missing.

    The system drops the lock of a process that dies, however it died, so none is ever stale.

    Raises:
        FolderInUseError: Another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = _acquire(folder / LOCK_FILE)
    if handle is None:
        yield
        return
    # a forked child, such as a reader of data, would continue holding the lock of a killed parent
    held = [handle]
    os.register_at_fork(after_in_child=lambda: _close_all(held))
    try:
        os.ftruncate(handle, 0)
        with suppress(OSError):  # on a full disk the holder has no name
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        (folder / LOCK_FILE).unlink(missing_ok=True)
        _close_all(held)


def _acquire(file: Path) -> int | None:
    """Return an open handle with the lock, None where the file system has none."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace") or "another process"
            os.close(handle)
            raise FolderInUseError(
                f"{file.parent} is in use by {holder}; wait for its end or choose another output."
            ) from None
        except OSError:
            os.close(handle)
            warnings.warn(
                f"{file.parent} is on a file system without locks: nothing keeps a second run out.",
                stacklevel=3,
            )
            return None
        if _is_open(file, handle):
            return handle
        # the one before us deleted it between our opening and locking it
        os.close(handle)


def _is_open(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(handle))
    except FileNotFoundError:
        return False


def _close_all(handles: list[int]) -> None:
    while handles:
        os.close(handles.pop())
