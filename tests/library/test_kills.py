"""A build that the system kills at any moment is gone on with to the same memory, bit for bit."""

import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from library_runs import assert_same, read, write_files

from gcattn.library.state import read_state


def killed_now_and_then(kills, arguments, folder, seconds, draw):
    """Build in processes; so many are killed, each after up to `seconds`, the last is not."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    while True:
        child = context.Process(target=read, args=(folder, *arguments))
        child.start()
        if not kills:
            child.join()
            return child.exitcode
        time.sleep(draw.uniform(0, seconds))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        if child.exitcode == 0 or (folder.exists() and is_finished(folder)):
            return 0
        kills -= 1


def is_finished(folder):
    state = read_state(folder)
    return state is not None and state.unfinished is None


@pytest.mark.parametrize("total", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_by_the_system_at_random_moments(total, model, tokenizer, settings, tmp_path):
    arguments = model, tokenizer, settings, [write_files(tmp_path / "texts", 12)]
    begin = time.monotonic()
    read(tmp_path / "whole", *arguments)
    seconds = time.monotonic() - begin
    draw = random.Random(total)
    for number in range(-(-total // 3)):
        folder = tmp_path / str(number)
        assert killed_now_and_then(3, arguments, folder, seconds, draw) == 0
        assert is_finished(folder)
        assert_same(tmp_path / "whole", folder)
