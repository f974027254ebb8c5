"""What all tables of README and docs are made with."""

import json
import re
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


def origin(result: dict[str, Any], *others: dict[str, Any]) -> str:
    """Return the line that says where a result comes from, and others that differ in their seed."""
    seeds = ", ".join(str(each["seed"]) for each in (result, *others))
    seeds = f"seeds {seeds}" if others else f"seed {seeds}"
    hardware, software = result["hardware"], result["software"]
    machine = hardware.get("gpu") or f"{hardware['cpu']}, {hardware['cores']} cores"
    return (
        f"\n`{result['command']}` · {result['trials']} trials from {seeds} · "
        f"{machine} · torch {software['torch']} · {result['date'][:10]}\n"
    )


def origins(results: list[dict[str, Any]]) -> str:
    """Return a line for each run; runs that differ in nothing but their seed have one."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        same = re.sub(r"--seed \d+|_\d+\.json", "", result["command"])
        runs.setdefault(same, []).append(result)
    return "".join(origin(*run) for run in runs.values())
