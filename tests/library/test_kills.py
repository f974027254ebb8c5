"""A build that the system kills at any moment is gone on with to the same memory, bit for bit."""

import itertools
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from library_runs import assert_same, read, write_files

from gcattn.library.state import read_state
from gcattn.memory.saved import open_memory


def build_and_kill(arguments, folder, seconds, draw):
    """Build in processes that are killed after up to `seconds`; returns how many were, at most 3.

    The last one is left to finish.
    """
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    kills = 0
    while True:
        child = context.Process(target=read, args=(folder, *arguments))
        child.start()
        if kills < 3:
            time.sleep(draw.uniform(0, seconds))
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        if child.exitcode == -signal.SIGKILL:
            kills += 1
            if folder.exists() and is_finished(folder):
                return kills  # killed when all was written
        else:
            assert child.exitcode == 0
            return kills


def is_finished(folder):
    state = read_state(folder)
    return state is not None and state.unfinished is None


@pytest.mark.parametrize("total", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_by_the_system_at_random_moments(total, model, tokenizer, settings, tmp_path):
    arguments = model, tokenizer, settings, [write_files(tmp_path / "texts", 12)]
    begin = time.monotonic()
    read(tmp_path / "whole", *arguments)
    seconds = time.monotonic() - begin
    draw, kills = random.Random(total), 0
    for number in itertools.count():
        if kills >= total:
            break
        folder = tmp_path / str(number)
        kills += build_and_kill(arguments, folder, seconds, draw)
        assert is_finished(folder)
        assert_same(tmp_path / "whole", folder)


def test_what_a_kill_leaves_of_a_file_is_removed_by_the_next_run(
    model, tokenizer, settings, tmp_path
):
    folder, texts = tmp_path / "memory", write_files(tmp_path / "texts", 2, large=None)
    folder.mkdir()
    left = [folder / name for name in (".lock", ".memory.json.x1", ".library.json.x2")]
    for file in left:
        file.write_text("half")
    read(folder, model, tokenizer, settings, [texts])
    assert not any(file.exists() for file in left)
    assert len(open_memory(folder).documents) == 2
