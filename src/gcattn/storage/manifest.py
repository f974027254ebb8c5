"""`manifest.json`: the size and SHA-256 of every file of a folder, so that damage is noticed.

    {"version": 2, "files": {"model.safetensors": {"bytes": 48, "sha256": "9f86d0…"}, …}}

Version 1, which had no such field, knows sizes only:

    {"step": 4, "files": {"model.safetensors": 48}}

Files that are not listed, such as a reader's notes, are not looked at.
"""

import hashlib
import json
import re
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "manifest.json"
VERSION = 2
# hashing up to here takes less than a second
SMALL_BYTES = 2**28


class DamagedFolderError(ValueError):
    """A folder does not hold what was written into it."""


@dataclass(frozen=True)
class ListedFile:
    """What the manifest says about a file; `sha256` is None in version 1."""

    name: str
    num_bytes: int
    sha256: str | None


def write_manifest(folder: Path) -> None:
    """List all files of a folder that nobody reads yet."""
    (folder / MANIFEST).write_text(manifest_text(folder), encoding="utf-8")


def manifest_text(folder: Path) -> str:
    """Return the manifest of a folder's files, at any depth, as they are now."""
    files = sorted(path for path in files_of(folder) if path != folder / MANIFEST)
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = list(pool.map(sha256_of, files))
    entries = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256}
        for file, sha256 in zip(files, hashes, strict=True)
    }
    return json.dumps({"version": VERSION, "files": entries}, indent=2) + "\n"


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, not following links to other folders."""
    return (path for path in folder.rglob("*") if path.is_file())


def read_manifest(folder: Path) -> list[ListedFile]:
    """Return what a folder must hold.

    Raises:
        FileNotFoundError: It has no manifest.
        DamagedFolderError: The manifest is not as we write it.
    """
    file = folder / MANIFEST
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        version = state.get("version", 1)
        if version not in (1, VERSION):
            raise DamagedFolderError(
                f"{file} has version {version!r}, this release reads 1 and {VERSION}."
            )
        return [_listed(name, entry, version) for name, entry in state["files"].items()]
    except FileNotFoundError:
        raise
    except DamagedFolderError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise DamagedFolderError(f"{file} is damaged.") from error


def check_folder(
    folder: Path, *, hash_up_to: int | None = SMALL_BYTES, edited: Container[str] = ()
) -> None:
    """Compare a folder with its manifest; one without a manifest passes.

    Args:
        folder: The folder.
        hash_up_to: Read files of at most so many bytes and compare their hash, None: all. Of larger
            ones the size is compared.
        edited: Names of files that may have been edited: of another size they pass, with other
            bytes of the same size they don't.

    Raises:
        DamagedFolderError: The first difference, with the file's name.
    """
    if not (folder / MANIFEST).exists():
        return
    if found := damages(folder, hash_up_to=hash_up_to, edited=edited):
        raise DamagedFolderError(
            f"{found[0]} If you meant to change it: gcattn verify {folder} --record"
        )


def damages(
    folder: Path, *, hash_up_to: int | None = None, edited: Container[str] = ()
) -> list[str]:
    """Return a sentence for each file that is not as the manifest, which must exist, says."""
    try:
        listed = read_manifest(folder)
    except DamagedFolderError as error:
        return [str(error)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = pool.map(lambda entry: _damage(folder, entry, hash_up_to, edited), listed)
        return [sentence for sentence in found if sentence]


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _damage(
    folder: Path, listed: ListedFile, hash_up_to: int | None, edited: Container[str]
) -> str | None:
    file = folder / listed.name
    if not file.is_file():
        return f"{file} is missing."
    num_bytes = file.stat().st_size
    if num_bytes != listed.num_bytes:
        if listed.name in edited:
            return None
        return f"{file} is damaged: it has {num_bytes} bytes instead of {listed.num_bytes}."
    if listed.sha256 is None or (hash_up_to is not None and num_bytes > hash_up_to):
        return None
    try:
        same = sha256_of(file) == listed.sha256
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}."
    return None if same else f"{file} has changed since it was written."


def _listed(name: str, entry: Any, version: int) -> ListedFile:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{name!r} is not a file of the folder.")
    if version == 1:
        return ListedFile(name, _count(entry), None)
    if entry.keys() != {"bytes", "sha256"} or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise ValueError(f"The entry of {name!r} is not as we write it.")
    return ListedFile(name, _count(entry["bytes"]), entry["sha256"])


def _count(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r} is not a number of bytes.")
    return number
