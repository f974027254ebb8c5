"""Processes that share the reading of a library make the memory that one process makes."""

import pytest
from library_runs import Killed, assert_same, killed_after, read, write_files

from processes import run_together


def read_together(rank, folder, arguments, blocks):
    on_progress = None if blocks is None or rank else killed_after(blocks)
    read(folder, *arguments, on_progress=on_progress)


@pytest.fixture(scope="module")
def arguments(model, tokenizer, settings, tmp_path_factory):
    return model, tokenizer, settings, [write_files(tmp_path_factory.mktemp("texts"), 12)]


@pytest.fixture(scope="module")
def alone(arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("memories") / "alone"
    read(folder, *arguments)
    return folder


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_make_the_memory_of_one_bitwise(count, alone, arguments, tmp_path):
    run_together(count, read_together, tmp_path / "memory", arguments, None)
    assert_same(alone, tmp_path / "memory")


def test_two_processes_go_on_where_one_was_killed(alone, arguments, tmp_path):
    with pytest.raises(Killed):
        read(tmp_path / "memory", *arguments, on_progress=killed_after(3))
    run_together(2, read_together, tmp_path / "memory", arguments, None)
    assert_same(alone, tmp_path / "memory")


def test_what_the_first_process_refuses_ends_all_of_them(alone, arguments):
    with pytest.raises(AssertionError, match="process 0") as failed:
        run_together(2, read_together, alone, arguments, None)
    assert "holds a memory already" in str(failed.value)
