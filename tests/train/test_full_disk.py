"""A full disk ends training with one line that says so; nothing half-written stays; it resumes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers.modeling_utils
from transformers import TrainerState

from gcattn.storage.full_disk import DiskFullError
from gcattn.train.checkpoints import find_damage, list_checkpoints
from gcattn.train.run import run_training
from gcattn.train.run_log import RunLog

from .runs import assert_same_run, losses

RUN = ("training.steps=4", "training.save_every=2", "training.eval_every=0")


def assert_nothing_half_written(output: Path) -> None:
    names = {path.name for path in output.iterdir()}
    assert names <= {
        "config.yaml",
        "log.jsonl",
        "tensorboard",
        "model",
        "checkpoint-2",
        "checkpoint-4",
    }
    assert all(find_damage(folder) is None for folder in list_checkpoints(output))
    if (output / "model").exists():
        assert find_damage(output / "model") is None


@pytest.mark.parametrize(
    "kilobytes", [120, *(pytest.param(n, marks=pytest.mark.slow) for n in (8, 40, 260, 400))]
)
def test_disk_that_fills_up_is_said_and_the_run_resumes_bitwise(
    make_config, small_disk, kilobytes, tmp_path
):
    disk = small_disk(kilobytes)
    config = make_config(*RUN, f"output={disk / 'run'}")
    with pytest.raises(DiskFullError, match="The disk is full") as error:
        run_training(config)
    assert "\n" not in str(error.value)
    output = Path(config.output)
    if output.exists():
        assert_nothing_half_written(output)
    os.system(f"mount -o remount,size=100m {disk}")
    run_training(config, resume=True)
    whole = make_config(*RUN, f"output={tmp_path / 'whole'}")
    run_training(whole)
    assert_same_run(config, whole)


WRITERS = {
    "safetensors": (transformers.modeling_utils, "safe_save_file"),
    "torch": (torch, "save"),
    "state": (TrainerState, "save_to_json"),
    "sync": (os, "fsync"),
    "rename": (os, "rename"),
}


@pytest.mark.parametrize(
    "name",
    [
        name if number == 0 else pytest.param(name, marks=pytest.mark.slow)
        for number, name in enumerate(WRITERS)
    ],
)
def test_every_write_of_a_run_may_meet_a_full_disk(make_config, monkeypatch, name):
    """Each call of each writer in turn; the run that follows is whole."""
    owner, function = WRITERS[name]
    original = getattr(owner, function)
    config = make_config(*RUN, "training.steps=2")
    calls = 0

    def count(*args, **kwargs):
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, function, count)
    run_training(config)
    assert calls
    # the first, one in the middle and the last call
    for number in sorted({1, (calls + 1) // 2, calls}):
        left = number

        def full(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, function, full)
        with pytest.raises(DiskFullError, match="The disk is full"):
            run_training(config, overwrite=True)
        assert_nothing_half_written(Path(config.output))
        monkeypatch.setattr(owner, function, original)
        run_training(config, resume=True)
        assert list(losses(config)) == [1, 2]


def test_log_line_that_does_not_fit_leaves_no_part(small_disk):
    log = RunLog(small_disk(4))
    with pytest.raises(DiskFullError):
        for step in range(1000):
            log.append({"step": step, "loss": 1 / 3})
    assert log.path.read_bytes().endswith(b"}\n")


@pytest.mark.slow
def test_full_disk_is_one_line_of_the_command(config_file, small_disk):
    disk = small_disk(60)
    command = [sys.executable, "-m", "gcattn.cli", "train", str(config_file), f"output={disk}/run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("gcattn: error: The disk is full: ")
