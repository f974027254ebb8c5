"""Dropping cached files: not where the files are the cache."""

import os
from pathlib import Path

import pytest

from benchmarks.page_cache import _is_in_memory, drop_cached_files


def test_the_innermost_and_latest_mount_decides(tmp_path):
    mounts = tmp_path / "mounts"
    inner = tmp_path / "in memory"
    inner.mkdir()
    escaped = str(inner).replace(" ", "\\040")
    mounts.write_text(
        f"disk / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\ndisk {tmp_path} ext4 rw 0 0\n"
        f"tmpfs {escaped} tmpfs rw 0 0\n",
        encoding="utf-8",
    )
    assert not _is_in_memory(tmp_path, mounts)
    assert _is_in_memory(inner, mounts)
    assert not _is_in_memory(inner, tmp_path / "nowhere")


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="there are no files in memory")
def test_files_in_memory_cannot_be_dropped():
    assert not drop_cached_files(Path("/dev/shm"))
