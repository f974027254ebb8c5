"""Which files a SOURCE names: a file, a glob pattern, or a folder and the split of its names."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from gcattn.storage.home import expand_home

KINDS = (".parquet", ".jsonl", ".json", ".txt")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
EVERY_SPLIT = "all"
_WILDCARDS = "*?["
_SPLIT_NAME = re.compile(
    r"(?:^|[-_./])(train|validation|valid|val|dev|test)(?=[-_./]|$)", re.IGNORECASE
)
_SPLIT_SYNONYMS = {"valid": "validation", "val": "validation", "dev": "validation"}
_logger = logging.getLogger(__name__)


def find_files(source: str, split: str | None) -> list[Path] | None:
    """Return the sorted data files of a local source, or None for a dataset of the hub.

    Args:
        source: What the user named.
        split: The split asked for, "all" for the files of every split, or None: then a file or a
            pattern is read as it is, and of a folder whose names all say a split "train" is read.

    Raises:
        FileNotFoundError: There is nothing there.
        OSError: A folder can't be read.
        ValueError: The names do not tell the split apart, or a file is of no kind known here.
    """
    path = expand_home(source)
    if path.is_file():
        _check_kind(path)
        return [path] if split is None else _files_of_split([path], path.parent, source, split)
    if path.is_dir():
        files = _files_of_folder(path)
        return _files_of_split(files, path, source, split)
    if any(letter in source for letter in _WILDCARDS) and "://" not in source:
        matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        files = [match for match in matches if match.is_file()]
        if not files:
            raise FileNotFoundError(f"No file matches {source!r}.")
        for file in files:
            _check_kind(file)
        return files if split is None else _files_of_split(files, _fixed(path), source, split)
    if "://" not in source and not _is_dataset_name(source):
        raise FileNotFoundError(
            f"{source!r} does not exist; expected a file, folder, glob pattern or a "
            "Hugging Face dataset name such as emozilla/pg19."
        )
    return None


def kind_of(file: Path) -> str | None:
    """Return ".jsonl" for a.jsonl and a.jsonl.gz alike, None for what can't be read."""
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    if len(suffixes) == 2 and suffixes[1] in COMPRESSIONS and suffixes[0] in KINDS[1:]:
        return suffixes[0]
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else None


def _fixed(pattern: Path) -> Path:
    """Return the folders before the first part of a pattern that has a wildcard."""
    return next(p for p in pattern.parents if not any(letter in str(p) for letter in _WILDCARDS))


def _is_dataset_name(source: str) -> bool:
    """Tell owner/name from a mistyped path, which must not send anyone to the network."""
    owner, _, name = source.partition("/")
    is_name = all(re.fullmatch(r"\w[\w.-]*", part) for part in (owner, name))
    return is_name and kind_of(Path(name)) is None and not Path(owner).exists()


def _check_kind(file: Path) -> None:
    if kind_of(file) is None:
        raise ValueError(
            f"{file}: expected one of {', '.join(KINDS)} (all but the first also as "
            f"{', '.join(COMPRESSIONS)}), got {file.suffix!r}."
        )


def _files_of_folder(folder: Path) -> list[Path]:
    """Return a folder's files of the first kind present; say what else there is."""
    found: list[Path] = []
    left_out: list[str] = []
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        left_out += [
            os.path.join(place, name)
            for name in folders
            if os.path.islink(os.path.join(place, name))
        ]
        found += [Path(place) / name for name in names if not name.startswith(".")]
    by_kind: dict[str | None, list[Path]] = {}
    for file in sorted(file for file in found if file.is_file()):
        by_kind.setdefault(kind_of(file), []).append(file)
    kind = next((kind for kind in KINDS if kind in by_kind), None)
    if kind is None:
        raise FileNotFoundError(
            f"{folder} holds no {', '.join(KINDS)} file"
            + (f", only {_some(by_kind[None])}." if None in by_kind else ".")
        )
    left_out += [str(file) for other in by_kind if other != kind for file in by_kind[other]]
    if left_out:
        _logger.warning(
            "%s: %s files are read; not read: %s.", folder, kind[1:], _some(sorted(left_out))
        )
    return by_kind[kind]


def _refuse(error: OSError) -> None:
    raise OSError(f"Can't read the folder {error.filename} ({error.strerror}).") from error


def _files_of_split(files: list[Path], root: Path, source: str, split: str | None) -> list[Path]:
    """Return the files whose names say `split`; refuse names that do not tell.

    Raises:
        ValueError: Files without a split in their name lie among others, or a split was asked for
            that no name says.
    """
    if split == EVERY_SPLIT:
        return files
    splits: dict[str | None, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file.relative_to(root)), []).append(file)
    if set(splits) == {None}:
        if split is None:
            return files
        raise ValueError(
            f"No file name of {source} says its split, so {split!r} can't be told apart; leave out "
            "--split to read everything, or give each split a folder or file of its own."
        )
    names = ", ".join(sorted(name for name in splits if name))
    if None in splits:
        others = _some(file.name for file in splits[None])
        raise ValueError(
            f"In {source} some names say their split ({names}) and some do not ({others}); pass "
            f"--split {EVERY_SPLIT} to read everything, or choose files with a pattern in quotes."
        )
    wanted = _SPLIT_SYNONYMS.get(split or "train", split or "train")
    if wanted not in splits:
        raise ValueError(f"{source} has no files of split {wanted!r}; it has: {names}.")
    return splits[wanted]


def _split_of(name: Path) -> str | None:
    """Return the split that a name says, None where it says none or several."""
    said = {found.lower() for found in _SPLIT_NAME.findall(name.as_posix())}
    splits = {_SPLIT_SYNONYMS.get(name, name) for name in said}
    return splits.pop() if len(splits) == 1 else None


def _some(names: Iterable[object], most: int = 3) -> str:
    """List the first few of many."""
    listed = [str(name) for name in names]
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")
