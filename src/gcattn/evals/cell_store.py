"""Finished cells of a running evaluation, kept until its result is complete."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from gcattn.storage.whole import new_file

SETTINGS_FILE = "settings"


class CellStore:
    """A folder with a file for each finished cell of an evaluation.

    Args:
        folder: Created when the first cell is saved.
        settings: What the cells depend on.

    Raises:
        ValueError: The folder holds cells of another evaluation.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self._settings = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        file = folder / SETTINGS_FILE
        kept = [entry for entry in folder.glob("*") if entry != file] if folder.is_dir() else []
        if not kept:
            return
        if not file.exists() or file.read_text(encoding="utf-8") != self._settings:
            raise ValueError(
                f"{folder} holds an unfinished evaluation with other settings (model, haystack or "
                "seed); remove it or write to another file."
            )

    def load(self, name: str, least: int) -> list[dict[str, Any]] | None:
        """Return the first `least` answers of a finished cell, or None if it has fewer."""
        file = self.folder / name
        if not file.exists():
            return None
        answers: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))[:least]
        return answers if len(answers) == least else None

    def save(self, name: str, answers: list[dict[str, Any]]) -> None:
        """Save a finished cell atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with new_file(self.folder / SETTINGS_FILE) as stream:
            stream.write(self._settings)
        with new_file(self.folder / name) as stream:
            stream.write(json.dumps(answers) + "\n")

    def remove(self) -> None:
        """Delete the folder, once the result holds everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
