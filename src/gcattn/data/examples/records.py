"""Rows of several columns: local parquet, jsonl and json files, or a Hugging Face dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gcattn.data.compressed_files import DataFile
from gcattn.data.hub_documents import open_hub_dataset
from gcattn.data.source_files import find_files, kind_of
from gcattn.data.text_column import PIECE

_BATCH_ROWS = 32


def read_records(
    source: str, split: str | None = None, config_name: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every row with its place.

    Args:
        source: A parquet, jsonl or json file (the latter two also compressed), a folder of one of
            these, a glob pattern, or the name of a Hugging Face dataset.
        split: Split to read, where the source has splits; None is "train" there.
        config_name: Configuration of a Hugging Face dataset, such as "3.0.0".

    Raises:
        FileNotFoundError: There is no such source.
        ValueError: A file is damaged or of another kind, or a row is no object.
    """
    files = find_files(source, split)
    if files is None:
        for number, row in enumerate(open_hub_dataset(source, split, config_name), start=1):
            yield f"{source}, row {number}", dict(row)
        return
    for file in files:
        kind = kind_of(file)
        if kind == ".txt":
            raise ValueError(f"{file} has no columns; expected parquet, jsonl or json.")
        yield from _READERS[str(kind)](file)


def _read_parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"{file}: reading parquet needs pyarrow; install it with: pip install 'gcattn[train]'."
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: not a readable parquet file ({reason}).") from error


def _read_jsonl(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with DataFile(file) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if line.strip():
                place = f"{file}, line {number}"
                yield place, _object(place, line)


def _read_json(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with DataFile(file) as stream:
        content = b"".join(iter(lambda: stream.read(PIECE), b""))
    rows = _parse(str(file), content)
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        place = f"{file}, record {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{place}: expected a JSON object, got {type(row).__name__}.")
        yield place, row


def _lines(stream: DataFile) -> Iterator[bytes]:
    line = b""
    while part := stream.readline(PIECE):
        line += part
        if part.endswith(b"\n"):
            yield line
            line = b""
    if line:
        yield line


def _object(place: str, line: bytes) -> dict[str, Any]:
    row = _parse(place, line)
    if not isinstance(row, dict):
        raise ValueError(f"{place}: expected a JSON object, got {type(row).__name__}.")
    return row


def _parse(place: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: expected UTF-8 text ({error.reason}).") from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{place}: not valid JSON ({reason}).") from error


_READERS = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".json": _read_json}
