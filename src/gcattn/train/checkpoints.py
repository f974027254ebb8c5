"""Checkpoint folders: written under another name, renamed when whole, checked before use.

`<output>/checkpoint-<step>` exists only once everything in it is on disk. Its manifest lists every
file with size and SHA-256, so that a folder damaged later is noticed and skipped.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gcattn.storage.manifest import MANIFEST, damages, read_manifest
from gcattn.storage.removal import remove
from gcattn.storage.whole import publish_folder

PREFIX = "checkpoint-"
UNFINISHED = ".unfinished"


class DamagedCheckpointError(ValueError):
    """A checkpoint that looked whole cannot be read, or a run has no whole one."""


def checkpoint_step(folder: Path) -> int:
    """Return the step in the name of a checkpoint folder, -1 for any other."""
    digits = folder.name.removeprefix(PREFIX)
    named = folder.name.startswith(PREFIX) and digits.isascii() and digits.isdigit()
    return int(digits) if named and len(digits) < 20 and folder.is_dir() else -1


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
        complaints.append(f"Ignoring {folder.name}: {damage}")
    return None, complaints


def checkpoint_to_resume(output: Path) -> tuple[Path | None, list[str]]:
    """Do the same, but refuse a run that has checkpoints of which none is whole.

    Raises:
        DamagedCheckpointError: Resuming would start over and discard what there is.
    """
    folder, complaints = newest_checkpoint(output)
    if folder is None and complaints:
        raise DamagedCheckpointError(
            f"No checkpoint in {output} is whole: {complaints[0].removeprefix('Ignoring ')} "
            "Start again with --overwrite, or in another output."
        )
    return folder, complaints


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint as a sentence, None if every file is as written."""
    try:
        return next(iter(damages(folder)), None)
    except FileNotFoundError:
        return f"it has no {MANIFEST}, so it was never finished."


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
        if all(file.sha256 is not None for file in read_manifest(Path(folder))):
            what = f"{folder} is as it was written, but cannot be loaded: {reason}"
        else:
            what = f"{folder} cannot be read ({reason}); delete it to resume from the one before."
        raise DamagedCheckpointError(what) from error


def publish_checkpoint(unfinished: Path, output: Path, step: int) -> Path:
    """Complete a checkpoint folder with its manifest, put it on disk, and give it its name."""
    folder = output / f"{PREFIX}{step}"
    publish_folder(unfinished, folder, replace=True)
    return folder


def remove_old_checkpoints(output: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for folder in list_checkpoints(output)[keep:]:
        remove_checkpoint(folder)


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, its manifest first: one that is half deleted must not look whole."""
    if not folder.is_symlink():
        (folder / MANIFEST).unlink(missing_ok=True)
    remove(folder)
