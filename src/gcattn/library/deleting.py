"""Delete files from a memory, by the paths that they were read from or by number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeGuard

from gcattn.library.state import read_finished_state
from gcattn.memory.saved import Document, delete_documents, open_memory
from gcattn.storage.home import expand_home


@dataclass(frozen=True)
class DeletedFiles:
    """The result of a deletion.

    Attributes:
        deleted: Documents that are deleted now and were not before.
        deleted_before: Documents that were named and had been deleted.
    """

    deleted: tuple[Document, ...]
    deleted_before: tuple[Document, ...]


def delete_from_library(
    folder: str | Path, files: str | Path | int | Iterable[str | Path | int]
) -> DeletedFiles:
    """Delete files from a memory: nothing is retrieved from them again.

    All of them are deleted, or none. Repeating the call is safe. Their bytes stay until the memory
    is exported.

    Args:
        folder: Folder of the memory.
        files: Paths as they were read, of files or of folders that hold some; or numbers of
            documents. Where a file was read more than once, each of its documents is deleted.

    Raises:
        DamagedFolderError: The memory is not what was written.
        FileNotFoundError: There is no memory.
        FolderInUseError: Another process writes into the folder.
        ValueError: A file is not known, or the last build or append is not finished.
    """
    folder = expand_home(folder)
    named = [files] if isinstance(files, str | Path | int) else list(files)
    read_finished_state(folder)
    documents = open_memory(folder).documents
    numbers = _numbers_of(named, [notes["name"] for notes in documents.names], folder)
    chosen = [documents[n] for n in numbers]
    deleted = tuple(document for document in chosen if not document.is_deleted)
    if deleted:
        delete_documents(folder, numbers)
    return DeletedFiles(deleted, tuple(document for document in chosen if document.is_deleted))


def _numbers_of(files: Sequence[str | Path | int], names: Sequence[str], folder: Path) -> list[int]:
    """Return the numbers of the documents of the given files, in order."""
    if not files:
        raise ValueError("Name at least one file to delete.")
    by_name: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        by_name[name].append(number)
    found: set[int] = set()
    unknown = []
    for file in files:
        numbers = _numbers(file, by_name)
        unknown += [] if numbers else [file]
        found.update(numbers)
    if unknown:
        what = "document" if _is_number(unknown[0]) else "file"
        more = f" and {len(unknown) - 1:,} more of those named" if len(unknown) > 1 else ""
        raise ValueError(
            f"{folder} holds no {what} {unknown[0]}{more}, so nothing was deleted."
            + _suggestion(str(unknown[0]), by_name)
            + f" gcattn memory info {folder} --documents lists its files."
        )
    return sorted(found)


def _numbers(file: str | Path | int, by_name: dict[str, list[int]]) -> list[int]:
    """Return the documents of a file, of a folder of files, or of that number; none if unknown."""
    if _is_number(file):
        if file in by_name:
            raise ValueError(f"{file} is a document and a file; write ./{file} for the file.")
        return [int(file)] if 0 <= int(file) < sum(map(len, by_name.values())) else []
    name = expand_home(str(file)).as_posix()  # as `find_files` writes it
    if name in by_name:
        return by_name[name]
    inside = f"{name}/"
    return [n for other, numbers in by_name.items() if other.startswith(inside) for n in numbers]


def _is_number(file: str | Path | int) -> TypeGuard[str | int]:
    if isinstance(file, str):
        return file.isascii() and file.isdecimal()
    return isinstance(file, int)


def _suggestion(name: str, names: Iterable[str]) -> str:
    last = PurePosixPath(name).name
    alike = next((other for other in names if PurePosixPath(other).name == last), None)
    return "" if alike is None else f" Did you mean {alike}?"
