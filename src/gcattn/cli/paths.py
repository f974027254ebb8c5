"""Paths on the command line: `--out=~/x` reaches a program with its `~`."""

from pathlib import Path
from typing import TypeVar

from gcattn.storage.home import expand_home

# what commands write by themselves; results/ of the repository holds what its pages show
RESULTS = Path("runs/results")
Given = TypeVar("Given", str, Path, None)


def expand(given: Given) -> Given:
    """Return what was given with the home folder in place of `~`: a callback of options."""
    if given is None or not str(given).startswith("~"):
        return given
    return type(given)(expand_home(given))
