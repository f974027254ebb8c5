"""Checkpoint folders: written under another name, renamed when whole, checked before use.

`<output>/checkpoint-<step>` exists only once everything in it is on disk. Its manifest, written
last, lists every file with its size, so that a folder damaged later is noticed and passed over.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
UNFINISHED = ".unfinished"


class DamagedCheckpointError(ValueError):
    """A checkpoint that looked whole cannot be read."""


def checkpoint_step(folder: Path) -> int:
    """Return the step in the name of a checkpoint folder, -1 for any other."""
    digits = folder.name.removeprefix(PREFIX)
    named = folder.name.startswith(PREFIX) and digits.isdigit() and folder.is_dir()
    return int(digits) if named else -1


def list_checkpoints(output: Path) -> list[Path]:
    """Return the checkpoint folders of a run, newest first, whole or not."""
    if not output.is_dir():
        return []
    folders = [folder for folder in output.iterdir() if checkpoint_step(folder) >= 0]
    return sorted(folders, key=checkpoint_step, reverse=True)


def newest_checkpoint(output: Path) -> tuple[Path | None, list[str]]:
    """Find the newest whole checkpoint.

    Returns:
        Its folder, None if there is none, and one sentence for each newer one that is not whole.
    """
    complaints: list[str] = []
    for folder in list_checkpoints(output):
        damage = find_damage(folder)
        if damage is None:
            return folder, complaints
        complaints.append(f"Ignoring {folder}: {damage}.")
    return None, complaints


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint, None if every file is there at its size."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}, so it was never finished"
    except (ValueError, KeyError, TypeError):
        return f"its {MANIFEST} is damaged"
    for name, size in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        found = (folder / name).stat().st_size
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    return None


@contextmanager
def reading(folder: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while a checkpoint is read into one clear sentence.

    Raises:
        DamagedCheckpointError: Something went wrong.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DamagedCheckpointError(
            f"{folder} cannot be read ({reason}); delete it to resume from the one before."
        ) from error


def publish_checkpoint(unfinished: Path, output: Path, step: int) -> Path:
    """Complete a checkpoint folder with its manifest, put it on disk, and give it its name."""
    files = sorted(file for file in unfinished.rglob("*") if file.is_file())
    sizes = {str(file.relative_to(unfinished)): file.stat().st_size for file in files}
    manifest = unfinished / MANIFEST
    manifest.write_text(json.dumps({"step": step, "files": sizes}, indent=2), encoding="utf-8")
    for file in [*files, manifest, unfinished]:
        _sync(file)
    folder = output / f"{PREFIX}{step}"
    remove_checkpoint(folder)
    os.replace(unfinished, folder)
    _sync(output)
    return folder


def remove_old_checkpoints(output: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for folder in list_checkpoints(output)[keep:]:
        remove_checkpoint(folder)


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, its manifest first: one that is half deleted must not look whole."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
