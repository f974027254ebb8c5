"""`<output>/log.jsonl`: one JSON object per logged step, for plots and scripts."""

import json
import os
from pathlib import Path
from typing import Any

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
        """Add one record."""
        line = json.dumps(record, allow_nan=False) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def drop_after(self, step: int) -> None:
        """Remove the records of later steps, which a resumed run writes again."""
        kept = [record for record in read_log(self.path) if record["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of a log, oldest first; a missing file is an empty log."""
    path = Path(path)
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records
