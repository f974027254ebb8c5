"""Triton kernels run in Triton's interpreter where there is no GPU.

Triton reads the variable when it is imported, and so do its own functions that kernels call. This
file is read before any test is, and transformers imports Triton, so it can stand nowhere deeper.
"""

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from interpreter import quicken

# other conftest files may be read, and import Triton, before pytest_configure can ask torch
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None):
        return  # other processes run the tests; this one needs no torch
    import torch

    # what it guards against, a loss of power, no test can cause; on some disks it takes long
    os.fsync = lambda descriptor: None
    is_quick = "not slow" in config.option.markexpr
    settings.register_profile("chosen", max_examples=40 if is_quick else 150, deadline=None)
    settings.load_profile("chosen")
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
    if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton"):
        quicken(check_overflow=not is_quick)


@pytest.fixture(scope="module", autouse=True)
def _imports_are_not_collected() -> None:
    """Keep what was imported so far out of garbage collection, which would walk it each time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a disk of a few kilobytes; skipped where nothing can be mounted."""
    mounted = []

    def mount(kilobytes: int) -> Path:
        place = tmp_path / f"disk_{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip("mounting needs rights that this user lacks")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
