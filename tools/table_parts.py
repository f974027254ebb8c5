"""What all tables of README and docs are made with."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def read(name: str) -> dict[str, Any]:
    """Return a result file of results/, by its name."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def table(header: str, rows: list[str]) -> str:
    """Return a Markdown table; the columns of the header are separated by bars."""
    columns = header.count("|") + 1
    return "\n".join([f"| {header} |", "|" + " --- |" * columns, *rows]) + "\n"


def origin(result: dict[str, Any]) -> str:
    """Return the line that says where a result comes from."""
    hardware, software = result["hardware"], result["software"]
    machine = hardware.get("gpu") or f"{hardware['cpu']}, {hardware['cores']} cores"
    return (
        f"\n`{result['command']}` · {result['trials']} trials from seed {result['seed']} · "
        f"{machine} · torch {software['torch']} · {result['date'][:10]}\n"
    )
