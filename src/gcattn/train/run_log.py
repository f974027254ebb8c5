"""`<output>/log.jsonl`: one JSON object per logged step, for plots and scripts."""

import json
import os
from pathlib import Path
from typing import Any

from gcattn.storage.full_disk import naming_full_disk
from gcattn.storage.whole import new_file

LOG_FILE = "log.jsonl"


class RunLog:
    """Append records to the log of a run.

    Every record is one write of one line, so that a process that dies leaves at most one partial
    line at the end, which `drop_after` and `read_log` pass over.

    Args:
        output: Folder of the run.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / LOG_FILE

    def append(self, record: dict[str, Any]) -> None:
        """Add one record, whole or not at all.

        Raises:
            DiskFullError: The disk is full.
        """
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with naming_full_disk(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(handle).st_size
                written = os.write(handle, line)
                if written < len(line):
                    # a disk that fills up takes the beginning; writing the rest says why
                    try:
                        os.write(handle, line[written:])
                    except OSError:
                        os.ftruncate(handle, size)
                        raise
            finally:
                os.close(handle)

    def drop_after(self, step: int) -> int:
        """Remove the records of later steps, which a resumed run writes again.

        Returns:
            How many damaged lines were dropped with them.
        """
        records, num_damaged = _parse(self.path)
        with new_file(self.path) as file:
            for record in records:
                if record["step"] <= step:
                    file.write(json.dumps(record) + "\n")
        return num_damaged


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of a log, oldest first, without damaged lines; a missing file is empty."""
    return _parse(Path(path))[0]


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the records, and how many lines before the last, which may be partial, are none."""
    if not path.exists():
        return [], 0
    lines = path.read_bytes().splitlines()
    records = [_record(line) for line in lines]
    num_damaged = sum(record is None for record in records[:-1])
    return [record for record in records if record is not None], num_damaged


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_whole = isinstance(record, dict) and type(record.get("step")) is int
    return record if is_whole else None
