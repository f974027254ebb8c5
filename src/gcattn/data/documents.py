"""Raw documents, the first step of the data flow: from a SOURCE the user names to texts.

A SOURCE that exists on disk (a file, a folder or a glob pattern) is read here, one document at a
time; anything else is a Hugging Face dataset and is read by `hub_documents`.
"""

import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIXES = (".parquet", ".jsonl", ".json", ".txt")
_SPLIT_NAME = re.compile(r"(?:^|[-_./])(train|validation|valid|val|dev|test)(?=[-_./]|$)")
_SPLIT_SYNONYMS = {"valid": "validation", "val": "validation", "dev": "validation"}


def read_documents(
    source: str,
    *,
    text_column: str = "text",
    split: str = "train",
    config_name: str | None = None,
) -> Iterator[str]:
    """Yield the non-empty texts of `source`, in a fixed order.

    Args:
        source: A parquet, jsonl, json or txt file, a folder of one of these, a glob pattern, or a
            Hugging Face dataset name (also `hf://…` data files).
        text_column: Field that holds the text; txt files have none: each file is one document.
        split: Split of a Hugging Face dataset, or of a folder whose file names say their split.
        config_name: Configuration of a Hugging Face dataset, such as "3.0.0".

    Raises:
        FileNotFoundError: `source` is neither on disk nor a dataset name.
        ValueError: The files hold no such split, no such column or something other than text.
    """
    files = find_files(source, split)
    if files is None:
        from gcattn.data.hub_documents import read_hub_documents

        rows = read_hub_documents(source, text_column, split, config_name)
        yield from _texts(source, rows, text_column)
        return
    for file in files:
        yield from _texts(str(file), _READERS[file.suffix](file, text_column), text_column)


def find_files(source: str, split: str) -> list[Path] | None:
    """Return the sorted data files of a local source, or None for a dataset of the hub."""
    path = Path(source).expanduser()
    if path.is_file():
        _check_suffix(path)
        return [path]
    if path.is_dir():
        return _files_of_split(path, split)
    if any(letter in source for letter in "*?[") and "://" not in source:
        matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        files = [match for match in matches if match.is_file()]
        if not files:
            raise FileNotFoundError(f"No file matches {source!r}.")
        for file in files:
            _check_suffix(file)
        return files
    if "://" not in source and not _is_dataset_name(source):
        raise FileNotFoundError(
            f"{source!r} does not exist; expected a file, folder, glob pattern or a "
            "Hugging Face dataset name such as emozilla/pg19."
        )
    return None


def _is_dataset_name(source: str) -> bool:
    """Tell owner/name from a mistyped path, which must not send anyone to the network."""
    owner, _, name = source.partition("/")
    is_name = all(re.fullmatch(r"\w[\w.-]*", part) for part in (owner, name))
    return is_name and Path(name).suffix not in SUFFIXES and not Path(owner).exists()


def _check_suffix(file: Path) -> None:
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file}: expected one of {', '.join(SUFFIXES)}, got {file.suffix!r}.")


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """Choose a folder's files: of the first suffix present, and of `split` if all names say one."""
    found = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(folder).parts)
    )
    for suffix in SUFFIXES:
        files = [file for file in found if file.suffix == suffix]
        if files:
            break
    else:
        raise FileNotFoundError(f"{folder} holds no {', '.join(SUFFIXES)} file.")
    splits: dict[str | None, list[Path]] = {}
    for file in files:
        match = _SPLIT_NAME.search(file.relative_to(folder).as_posix())
        name = match.group(1) if match else None
        splits.setdefault(_SPLIT_SYNONYMS.get(name or "", name), []).append(file)
    if None in splits:
        return files
    wanted = _SPLIT_SYNONYMS.get(split, split)
    if wanted not in splits:
        names = ", ".join(sorted(str(name) for name in splits))
        raise ValueError(f"{folder} has no files of split {split!r}; it has: {names}.")
    return splits[wanted]


def _texts(place: str, values: Iterator[Any], text_column: str) -> Iterator[str]:
    """Pass on what is text, leave out what is empty, refuse the rest."""
    try:
        for value in values:
            if value is None or value == "":
                continue
            if not isinstance(value, str):
                raise ValueError(
                    f"{place}: column {text_column!r} must hold text, got {type(value).__name__}; "
                    "name another with --text-column."
                )
            # JSON can hold half a surrogate pair, which no encoder takes
            value.encode()
            yield value
    except UnicodeError as error:
        raise ValueError(f"{place}: expected UTF-8 text ({error}).") from error


def _read_parquet(file: Path, text_column: str) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"{file}: reading parquet needs pyarrow; install it with: pip install 'gcattn[train]'."
        ) from error
    try:
        table = pyarrow.parquet.ParquetFile(file)
        check_column(str(file), text_column, table.schema_arrow.names)
        for batch in table.iter_batches(batch_size=32, columns=[text_column]):
            for value in batch.column(0):
                yield value.as_py()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file}: not a readable parquet file ({error}).") from error


def _read_jsonl(file: Path, text_column: str) -> Iterator[Any]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _text_of(
                    _parse(line, f"{file}, line {number}"), text_column, f"{file}, line {number}"
                )


def _read_json(file: Path, text_column: str) -> Iterator[Any]:
    records = _parse(_read_text(file), str(file))
    for number, record in enumerate(records if isinstance(records, list) else [records], start=1):
        yield _text_of(record, text_column, f"{file}, record {number}")


def _read_txt(file: Path, text_column: str) -> Iterator[str]:
    yield _read_text(file)


_READERS = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".txt": _read_txt,
}


def _read_text(file: Path) -> str:
    # newline="" keeps \r\n as it is
    with file.open(encoding="utf-8", newline="") as stream:
        return stream.read()


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not valid JSON ({error}).") from error


def _text_of(record: Any, text_column: str, place: str) -> Any:
    if not isinstance(record, dict):
        raise ValueError(f"{place}: expected a JSON object, got {type(record).__name__}.")
    check_column(place, text_column, list(record))
    return record[text_column]


def check_column(place: str, text_column: str, columns: list[str]) -> None:
    """Raise ValueError, naming the columns there are, unless `text_column` is one of them."""
    if text_column not in columns:
        raise ValueError(
            f"{place} has no column {text_column!r}; its columns are: {', '.join(columns)}. "
            "Choose one with --text-column."
        )
