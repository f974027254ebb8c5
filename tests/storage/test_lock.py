"""One writer at a time, and a dead one keeps nobody out."""

import os
import signal
import subprocess
import sys

import pytest

from gcattn.storage.lock import LOCK_FILE, FolderInUseError, sole_writer

HOLD = """
import os, sys, time
from pathlib import Path
from gcattn.storage.lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder, with a child that outlives it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    yield process
    process.kill()
    process.wait()
    for child in children:
        os.kill(int(child), signal.SIGKILL)


def test_second_process_is_refused_in_one_line_that_names_the_first(holder, tmp_path):
    with (
        pytest.raises(FolderInUseError, match=f"in use by process {holder.pid} on ") as error,
        sole_writer(tmp_path),
    ):
        pass
    assert "\n" not in str(error.value)


def test_lock_of_a_killed_process_is_taken_over_at_once(holder, tmp_path):
    holder.kill()
    holder.wait()
    with sole_writer(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")


def test_second_call_in_one_process_is_refused_too(tmp_path):
    with sole_writer(tmp_path), pytest.raises(FolderInUseError), sole_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_ends_with_the_block_whatever_ended_it(tmp_path):
    with pytest.raises(KeyError), sole_writer(tmp_path):
        raise KeyError
    with sole_writer(tmp_path):
        pass


def test_lock_file_that_a_dead_process_of_old_left_is_no_lock(tmp_path):
    (tmp_path / LOCK_FILE).write_text("process 1 on elsewhere")
    with sole_writer(tmp_path):
        pass
