"""Merging and exporting memories of files, so that more files can be added afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gcattn.library.state import LibraryState, read_finished_state
from gcattn.memory.saved import export_memory, merge_memories


def merge_libraries(folders: Sequence[Path], out: Path) -> None:
    """Merge memories of files into a new one, to which files can be added.

    Raises:
        FileExistsError: `out` holds something.
        FileNotFoundError: One of the folders holds no memory.
        ValueError: They were made by different models or tokenizers, or one is not finished.
    """
    states = [read_finished_state(folder) for folder in folders]
    known = [state for state in states if state is not None]
    if len({state.tokenizer for state in known}) > 1:
        raise ValueError("The memories were read with different tokenizers.")
    merge_memories(folders, out)
    if known:
        _begin(known[0], out)


def export_library(folder: Path, out: Path) -> None:
    """Make a new memory of those files of a memory that are not deleted.

    Raises:
        FileExistsError: `out` holds something.
        FileNotFoundError: The folder holds no memory.
        ValueError: It is not finished.
    """
    state = read_finished_state(folder)
    export_memory(folder, out)
    if state is not None:
        _begin(state, out)


def _begin(state: LibraryState, folder: Path) -> None:
    """Write the settings for adding files; runs of the old memories are not carried over."""
    replace(state, run=1, first_document=0).write(folder)
