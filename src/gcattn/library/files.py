"""The files of a library: found one by one in a fixed order, never listed as a whole.

A folder is walked depth first, sorted by name, so the same folder gives the same files in the same
order on every machine. Only the names of one folder at a time are in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gcattn.storage.home import expand_home


@dataclass(frozen=True)
class SourceFile:
    """A file to read.

    Attributes:
        path: Its path.
        num_bytes: Its size.
        is_named: Whether the user named this very file, rather than a folder that holds it.
    """

    path: Path
    num_bytes: int
    is_named: bool

    @property
    def name(self) -> str:
        """Its name in answers: the path as it was given."""
        return self.path.as_posix()


def find_files(sources: Iterable[str | Path]) -> Iterator[SourceFile]:
    """Yield the files of the given files and folders, in a fixed order.

    Hidden files and folders, and links to folders, are left out.

    Raises:
        FileNotFoundError: One of the sources does not exist.
        OSError: A folder cannot be read.
        ValueError: The path begins with the home of a user who does not exist.
    """
    for source in sources:
        path = expand_home(source)
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file():
            yield SourceFile(path, path.stat().st_size, is_named=True)
        else:
            raise FileNotFoundError(f"{source} is neither a file nor a folder.")


def _walk(folder: Path) -> Iterator[SourceFile]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise OSError(f"Can't read the folder {folder} ({error.strerror}).") from error
    for name in names:
        if name.startswith("."):
            continue
        path = folder / name
        if path.is_dir():
            if not path.is_symlink():
                yield from _walk(path)
        elif path.is_file():
            yield SourceFile(path, path.stat().st_size, is_named=False)
