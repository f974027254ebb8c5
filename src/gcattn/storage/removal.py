"""Deleting that never leaves the folder it was asked to delete in."""

import shutil
from pathlib import Path


def remove(path: Path) -> None:
    """Delete a file, a folder with all it holds, or a link, never what a link points to.

    Nothing happens if there is nothing.

    Raises:
        OSError: It cannot be deleted.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
