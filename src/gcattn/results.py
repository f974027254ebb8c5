"""Result files: the numbers of an experiment beside everything needed to make them again."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from gcattn import __version__
from gcattn.storage.whole import new_file

SOURCE = Path(__file__).parent
REQUIRED = ("name", "date", "command", "source", "seed", "trials", "config", "metrics")
# what a result depends on, seen from the folder of the package
MEASURING = (".", ":/benchmarks", ":/experiments")
COMMIT_VARIABLE = "GCATTN_COMMIT"
PACKAGES = ("torch", "triton", "transformers", "numpy")


def write_result(
    name: str,
    config: dict[str, Any],
    metrics: dict[str, Any],
    *,
    folder: str | Path = "results",
    seed: int,
    trials: int,
    command: str | None = None,
    measured: dict[str, Any] | None = None,
) -> Path:
    """Write `<folder>/<name>.json`: a result with its source version, hardware and software.

    Args:
        name: File name without its ending.
        config: What was run.
        metrics: What came out.
        folder: Made if it is missing.
        seed: Seed of the first trial.
        trials: Number of independent repetitions after the metrics.
        command: Command line that makes the file again; that of the process by default.
        measured: "source", "hardware" and "software" of the measurement, where it was made
            elsewhere than the file is written; those of this process by default.

    Returns:
        The file. It appears whole or not at all.

    Raises:
        ValueError: `config` or `metrics` hold something JSON cannot, NaN and infinities included.
        OSError: The folder cannot be written; a full disk is a `DiskFullError`.
    """
    result = {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command or _command_line(),
        "source": source_version(),
        "hardware": describe_hardware(),
        "software": describe_software(),
        **(measured or {}),
        "seed": seed,
        "trials": trials,
        "config": config,
        "metrics": metrics,
    }
    try:
        text = json.dumps(result, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The result {name!r} cannot be written as JSON: {error}.") from error
    file = Path(folder) / f"{name}.json"
    with new_file(file) as stream:
        stream.write(text + "\n")
    return file


def read_result(file: str | Path) -> dict[str, Any]:
    """Read what `write_result` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a result file.
    """
    try:
        result = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not a result file: not valid JSON ({error}).") from error
    missing = [field for field in REQUIRED if not isinstance(result, dict) or field not in result]
    if missing:
        raise ValueError(f"{file} is not a result file: it lacks {', '.join(missing)}.")
    return result


def source_version() -> dict[str, Any]:
    """Return the commit this code runs from and whether the code differs from it.

    Whoever copied the code to another machine says in the environment variable GCATTN_COMMIT which
    commit it is: a repository that came along may be behind it.
    """
    version: dict[str, Any] = {"version": __version__}
    if COMMIT_VARIABLE in os.environ:
        version["commit"] = os.environ[COMMIT_VARIABLE]
    # a repository around an environment that holds an installed copy is not ours
    elif _git("ls-files", Path(__file__).name):
        version["commit"] = _git("rev-parse", "HEAD")
        version["dirty"] = bool(_git("status", "--porcelain", "--", *MEASURING))
    return version


def describe_hardware() -> dict[str, Any]:
    """Return processor and cores of this machine, and its GPUs if it has any."""
    hardware: dict[str, Any] = {"cpu": _cpu_model(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        hardware["gpu"] = properties.name
        hardware["gpus"] = torch.cuda.device_count()
        hardware["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
    return hardware


def describe_software() -> dict[str, str | None]:
    """Return the versions of the operating system, Python and the packages that do the work."""
    versions = {package: _version(package) for package in PACKAGES}
    return {"os": platform.platform(), "python": platform.python_version(), **versions}


def _command_line() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = "" if spec is None else spec.name.removesuffix(".__main__")
    program = f"python -m {module}" if module else Path(sys.argv[0]).name
    return f"{'gcattn' if module == 'gcattn.cli' else program} {shlex.join(sys.argv[1:])}".rstrip()


def _git(*arguments: str) -> str:
    """Return what git says in the folder of the package, nothing where it knows no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=SOURCE, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
