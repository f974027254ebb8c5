"""How `gcattn train` leaves the process group."""

import gc
import io
import weakref

import pytest
from rich.console import Console

from gcattn.cli.train import end_run
from gcattn.train.run import TrainingOutcome

accelerate = pytest.importorskip("accelerate")


class Owner:
    """Holds itself, as a trainer does, so that only a collection frees it."""

    def __init__(self):
        self.itself = self


def test_what_owns_the_process_group_is_freed_before_the_group_is_left(monkeypatch, tmp_path):
    left = []
    monkeypatch.setattr(accelerate.PartialState, "use_distributed", True)
    monkeypatch.setattr(
        accelerate.PartialState, "destroy_process_group", lambda self: left.append(owner() is None)
    )
    gc.disable()
    try:
        owner = weakref.ref(Owner())
        end_run(TrainingOutcome(3, 0, tmp_path), Console(file=io.StringIO()))
    finally:
        gc.enable()
    assert left == [True]
