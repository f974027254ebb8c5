"""Readers of data files: each document an iterator of pieces, and every error says where it is."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gcattn.data.compressed_files import DataFile
from gcattn.data.long_json_line import LongJsonObject
from gcattn.data.parquet_reader import read_parquet
from gcattn.data.source_files import kind_of
from gcattn.data.text_column import PIECE, check_column, checked_text, pieces_of

# a longer line of a jsonl file is read in pieces
LONG_LINE = 2**22


def read_file(file: Path, text_column: str) -> Iterator[Iterator[str]]:
    """Yield the documents of a file.

    Raises:
        ValueError: The file is damaged. What is wrong with a document is raised by its pieces.
    """
    kind = kind_of(file)
    assert kind is not None, "find_files returns files of known kinds"
    return _READERS[kind](file, text_column)


def _read_txt(file: Path, text_column: str) -> Iterator[Iterator[str]]:
    with DataFile(file) as stream:
        yield decoded(str(file), iter(lambda: stream.read(PIECE), b""))


def _read_json(file: Path, text_column: str) -> Iterator[Iterator[str]]:
    with DataFile(file) as stream:
        text = "".join(decoded(str(file), iter(lambda: stream.read(PIECE), b"")))
    records = _parse(text, str(file), text_column)
    for number, record in enumerate(records if isinstance(records, list) else [records], start=1):
        yield _pieces_of_record(record, text_column, f"{file}, record {number}")


def _read_jsonl(file: Path, text_column: str) -> Iterator[Iterator[str]]:
    number = 0
    try:
        with DataFile(file) as stream:
            while line := stream.readline(LONG_LINE):
                number += 1
                place = f"{file}, line {number}"
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if len(line) >= LONG_LINE - len(codecs.BOM_UTF8) and not line.endswith(b"\n"):
                    rest = _rest_of_line(line, stream)
                    yield _pieces_of_long_line(rest, text_column, place)
                    # what the reader of the document left
                    for _ in rest:
                        pass
                elif line.strip():
                    yield _pieces_of_line(line, text_column, place)
    except ValueError as error:
        # a damaged file, as far as it could be read
        raise ValueError(f"{error} (after line {number})") from error


def _rest_of_line(begin: bytes, stream: DataFile) -> Iterator[bytes]:
    part = begin
    while part:
        yield part
        if part.endswith(b"\n"):
            return
        part = stream.readline(PIECE)


def _pieces_of_long_line(parts: Iterator[bytes], text_column: str, place: str) -> Iterator[str]:
    line = LongJsonObject(decoded(place, parts))
    try:
        for piece in line.text(text_column):
            yield checked_text(place, piece)
    except ValueError as error:
        message = str(error)
        if not message.startswith(place):
            message = f"{place}: not valid JSON ({message})."
        raise ValueError(message) from error
    check_column(place, text_column, line.keys)


def _pieces_of_line(line: bytes, text_column: str, place: str) -> Iterator[str]:
    (text,) = decoded(place, [line])
    yield from _pieces_of_record(_parse(text, place, text_column), text_column, place)


def _pieces_of_record(record: Any, text_column: str, place: str) -> Iterator[str]:
    if not isinstance(record, dict):
        raise ValueError(f"{place}: expected a JSON object, got {type(record).__name__}.")
    check_column(place, text_column, record)
    yield from pieces_of(place, text_column, record[text_column])


def _parse(text: str, place: str, text_column: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=partial(_object, text_column))
    except RecursionError as error:
        raise ValueError(f"{place}: not readable JSON (nested too deeply).") from error
    except ValueError as error:
        # Python words the message on a number of thousands of digits for programmers
        reason = "a number has too many digits" if "digits" in str(error) else str(error)
        raise ValueError(f"{place}: not valid JSON ({reason}).") from error


def _object(text_column: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs) and [key for key, _ in pairs].count(text_column) > 1:
        raise ValueError(f"the key {text_column!r} comes twice")
    return result


def decoded(place: str, parts: Iterable[bytes]) -> Iterator[str]:
    """Decode UTF-8, without the mark that some editors put before it.

    Raises:
        ValueError: The bytes are not UTF-8; the line is named where `place` names none.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    num_lines = 0
    try:
        for part in parts:
            num_lines += part.count(b"\n")
            if text := decoder.decode(part):
                yield text
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        if ", line " not in place:
            # the part that failed begins with what the decoder still held
            line = num_lines - error.object.count(b"\n", error.start) + 1
            place = f"{place}, line {line}"
        raise ValueError(
            f"{place}: expected UTF-8 text (byte 0x{error.object[error.start]:02x}: "
            f"{error.reason})."
        ) from error


_READERS = {
    ".parquet": read_parquet,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".txt": _read_txt,
}
