"""Whether a folder can be written, asked before hours of work rather than after them."""

import tempfile
from pathlib import Path


def check_writable(folder: Path) -> None:
    """Fail if nothing can be written into a folder or, where it is missing, made for it.

    Raises:
        OSError: It can't. Nothing is left behind either way.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with tempfile.TemporaryFile(dir=nearest):
        pass
