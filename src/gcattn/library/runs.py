"""The state of a run on a library: begun, killed and to be continued, or finished."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcattn.library.blocks import group_files
from gcattn.library.files import find_files
from gcattn.library.state import STATE_FILE, LibraryState, read_state
from gcattn.memory.saved import open_memory
from gcattn.memory.saved.description import DESCRIPTION
from gcattn.storage.lock import LOCK_FILE
from gcattn.storage.whole import is_unfinished


@dataclass(frozen=True)
class Place:
    """Where a run continues: everything before this segment of this group is written."""

    group: int = 0
    segment: int = 0


def cursor_of(run: LibraryState, place: Place) -> dict[str, int]:
    """Return the JSON that the memory stores for a place."""
    return {"run": run.run, "group": place.group, "segment": place.segment}


def place_of(cursor: Any, run: LibraryState) -> Place:
    """Return where a run continues, from what the memory stored last."""
    if not isinstance(cursor, dict) or cursor.get("run") != run.run:
        return Place()  # nothing of this run is written
    return Place(int(cursor["group"]), int(cursor["segment"]))


def run_on(folder: Path, sources: tuple[str, ...], begin: LibraryState | None) -> LibraryState:
    """Return the state from which a run starts or continues; `unfinished` is None for a new run.

    Args:
        folder: Folder of the memory.
        sources: Files and folders to read.
        begin: State of a new memory; None: add to an existing one.

    Raises:
        FileExistsError: There is a memory, or something else, where a new one is to be made.
        FileNotFoundError: There is no memory to add to.
        ValueError: Another run is not finished, or this one was begun with other options.
    """
    found = read_state(folder)
    if found is None:
        if begin is None:
            raise FileNotFoundError(
                f"{folder} holds no memory of files; gcattn memory build makes one."
            )
        if _holds_something(folder):
            raise FileExistsError(f"{folder} exists already; choose another name or remove it.")
        return begin
    if found.unfinished is not None and found.unfinished != sources:
        raise ValueError(
            f"Reading {' '.join(found.unfinished)} into {folder} is not finished; give the same "
            "files again to continue, or remove the folder."
        )
    if begin is None:
        return found
    if found.unfinished is None or found.run > 1:
        raise FileExistsError(
            f"{folder} holds a memory already; gcattn memory append adds files to it."
        )
    for name in ("model", "tokenizer", "settings"):
        if getattr(found, name) != getattr(begin, name):
            raise ValueError(
                f"Building {folder} was begun with another {name.rstrip('s')}; continue with the "
                "command that began it, or remove the folder."
            )
    return found


def check_names(folder: Path, run: LibraryState, block_tokens: int, place: Place) -> None:
    """Refuse to continue if files that a killed run had read have changed.

    Raises:
        ValueError: One has another name or size, or is gone.
    """
    assert run.unfinished is not None
    groups = group_files(find_files(run.unfinished), block_tokens)
    count = place.group + (place.segment > 0)
    files = (file for group in itertools.islice(groups, count) for file in group.files)
    documents = open_memory(folder).documents
    written = (documents[n] for n in range(run.first_document, len(documents)))
    for document, file in itertools.zip_longest(written, files):
        if document is None or file is None or document.name != file.name:
            changed = document.name if file is None else file.name
        elif document.notes.get("bytes") != file.num_bytes:
            changed = file.name
        else:
            continue
        raise ValueError(
            f"{changed} has come, gone or changed since the run that reads into {folder} began; "
            "restore it, or remove the folder and build it anew."
        )


def _holds_something(folder: Path) -> bool:
    if not folder.is_dir():
        return folder.exists()
    # left by a run that is killed before it begins
    left = (LOCK_FILE, "parts", DESCRIPTION)
    unfinished = (DESCRIPTION, STATE_FILE)
    for path in folder.iterdir():
        if path.name not in left and not any(is_unfinished(path, name) for name in unfinished):
            return True
    return (folder / DESCRIPTION).exists() and open_memory(folder).num_chunks > 0
