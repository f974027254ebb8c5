"""Files and folders that appear whole or not at all: written under a hidden name, then renamed.

A full disk, an error or Ctrl-C leaves what was there before and nothing else. What a killed process
leaves is deleted by the next one that writes the same folder.
"""

import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from gcattn.storage.full_disk import naming_full_disk
from gcattn.storage.manifest import files_of, write_manifest
from gcattn.storage.removal import remove

_UNFINISHED = "unfinished"


@contextmanager
def new_file(file: str | Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Yield a stream whose text or bytes become `file` when the block ends well.

    Args:
        file: Replaced if it exists; its folder is made if it is missing.
        mode: "w" for UTF-8 text, "wb" for bytes.

    Raises:
        DiskFullError: The disk is full.
    """
    file = Path(file)
    with naming_full_disk(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=_prefix(file))
        temporary = Path(name)
        try:
            with os.fdopen(handle, mode, encoding="utf-8" if mode == "w" else None) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            # mkstemp makes files that only their owner reads
            temporary.chmod(0o644)
            os.replace(temporary, file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def is_unfinished(path: Path, file: str) -> bool:
    """Whether a path is what a killed process left that wrote a `file` of that name."""
    return path.name.startswith(_prefix(Path(file)))


def remove_unfinished(file: Path) -> None:
    """Delete what killed processes left of a file; nobody may be writing it."""
    for path in file.parent.iterdir():
        if is_unfinished(path, file.name):
            path.unlink(missing_ok=True)


def _prefix(file: Path) -> str:
    return f".{file.name}."


@contextmanager
def new_folder(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a hidden folder that becomes `folder`, with a manifest, when the block ends well.

    Args:
        folder: Its parents are made if they are missing.
        replace: Replace a folder that is there; else it must be empty or missing.

    Raises:
        DiskFullError: The disk is full.
        FileExistsError: The folder holds something and `replace` is off.
    """
    folder = Path(folder)
    with naming_full_disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        if not replace and not _is_free(folder):
            raise FileExistsError(f"{folder} exists already; choose another name or remove it.")
        with _hidden_folder(folder) as unfinished:
            yield unfinished
            publish_folder(unfinished, folder, replace=replace)


def publish_folder(unfinished: Path, folder: Path, *, replace: bool = False) -> None:
    """Complete a folder with its manifest, put it on the disk, and give it its name.

    Raises:
        FileExistsError: `folder` holds something and `replace` is off.
    """
    write_manifest(unfinished)
    for path in (*files_of(unfinished), *_folders_of(unfinished), unfinished):
        _sync(path)
    former = folder.with_name(f".{folder.name}.former")
    if replace and os.path.lexists(folder):
        # a rename can't replace a full folder: the former one steps aside first
        remove(former)
        os.rename(folder, former)
    try:
        os.rename(unfinished, folder)
    except OSError as error:
        if os.path.lexists(former):
            os.rename(former, folder)
        if os.path.lexists(folder):
            raise FileExistsError(f"{folder} was made by another process.") from error
        raise
    remove(former)
    _sync(folder.parent)


def remove_abandoned(folder: Path) -> None:
    """Delete what processes left that died writing `folder`; undo half a replacement."""
    former = folder.with_name(f".{folder.name}.former")
    if os.path.lexists(former):
        if os.path.lexists(folder):
            remove(former)
        else:
            os.rename(former, folder)
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.*.{_UNFINISHED}"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                # whoever writes it holds this lock, which ends with the process
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            finally:
                os.close(handle)


@contextmanager
def _hidden_folder(folder: Path) -> Iterator[Path]:
    unfinished = Path(
        tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=f".{_UNFINISHED}")
    )
    handle = os.open(unfinished, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unfinished.chmod(0o755)
        yield unfinished
    finally:
        os.close(handle)
        if unfinished.exists():
            remove(unfinished)


def _is_free(folder: Path) -> bool:
    if folder.is_dir():
        return not any(folder.iterdir())
    return not os.path.lexists(folder)


def _folders_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_dir())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
