"""Delete documents of a memory: they stay listed but are never retrieved again."""

from collections.abc import Iterable
from pathlib import Path

from gcattn.memory.saved.description import DESCRIPTION, read_description, write_description
from gcattn.storage.lock import sole_writer
from gcattn.storage.whole import remove_unfinished


def delete_documents(folder: str | Path, documents: Iterable[int]) -> None:
    """Delete documents by number: all of them, or none if killed. Repeating the call is safe.

    Streams that open the memory from now on retrieve nothing from them. Their bytes stay until
    the memory is exported.

    Args:
        folder: Folder of the memory.
        documents: Their numbers, as `open_memory(folder).documents` has them.

    Raises:
        DamagedFolderError: The memory is not what was written.
        DiskFullError: The disk is full; the memory is as it was.
        FileNotFoundError: There is no memory.
        FolderInUseError: Another process writes into the folder.
        IndexError: There is no such document.
        ValueError: It is a saved stream.
    """
    folder = Path(folder)
    read_description(folder)  # a folder without a memory gets no lock
    with sole_writer(folder):
        description = read_description(folder)
        if description.stream is not None:
            raise ValueError(f"{folder} is a saved stream, not a memory of documents.")
        remove_unfinished(folder / DESCRIPTION)
        write_description(folder, description.without(documents, folder))
