"""A file or folder appears whole or not at all, and nothing else stays."""

import errno
import os
import subprocess
import sys

import pytest

from gcattn.storage.full_disk import DiskFullError, naming_full_disk
from gcattn.storage.manifest import check_folder
from gcattn.storage.removal import remove
from gcattn.storage.whole import new_file, new_folder


def tree(folder):
    """Everything below a folder, hidden names included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write_folder(folder, text="new", **options):
    with new_folder(folder, **options) as unfinished:
        (unfinished / "inner").mkdir()
        (unfinished / "inner" / "a").write_text(text)


def test_file_is_replaced_at_the_end_of_the_block(tmp_path):
    file = tmp_path / "made" / "file.txt"
    with new_file(file) as stream:
        stream.write("first")
        assert not file.exists()
    with pytest.raises(KeyError), new_file(file) as stream:
        stream.write("second")
        raise KeyError
    assert file.read_text() == "first"
    assert tree(tmp_path) == ["made", "made/file.txt"]
    assert file.stat().st_mode & 0o777 == 0o644


def test_folder_is_renamed_at_the_end_of_the_block(tmp_path):
    folder = tmp_path / "made" / "folder"
    with pytest.raises(KeyboardInterrupt), new_folder(folder) as unfinished:
        (unfinished / "a").write_text("x")
        raise KeyboardInterrupt
    assert tree(tmp_path) == ["made"]
    write_folder(folder)
    assert tree(folder) == ["inner", "inner/a", "manifest.json"]
    check_folder(folder)


def test_folder_is_replaced_only_when_asked(tmp_path):
    folder = tmp_path / "folder"
    write_folder(folder, "old")
    with pytest.raises(FileExistsError, match="exists already"):
        write_folder(folder)
    with pytest.raises(ValueError, match="stop"), new_folder(folder, replace=True):
        raise ValueError("stop")
    assert (folder / "inner" / "a").read_text() == "old"
    write_folder(folder, "new", replace=True)
    assert (folder / "inner" / "a").read_text() == "new"
    assert tree(tmp_path) == ["folder", "folder/inner", "folder/inner/a", "folder/manifest.json"]


def test_link_in_the_place_of_a_folder_is_replaced_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    (tmp_path / "folder").symlink_to(outside)
    write_folder(tmp_path / "folder", replace=True)
    assert not (tmp_path / "folder").is_symlink()
    assert tree(outside) == ["mine"]


def test_removing_a_link_keeps_what_it_points_to(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for path in (inside, tmp_path / "link", tmp_path / "broken", tmp_path / "nothing"):
        remove(path)
    assert tree(tmp_path) == ["outside", "outside/mine"]


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path):
    killed = (
        "import os, sys; from gcattn.storage.whole import new_folder\n"
        "with new_folder(sys.argv[1]) as unfinished: os.kill(os.getpid(), 9)"
    )
    folder = tmp_path / "folder"
    subprocess.run([sys.executable, "-c", killed, str(folder)], check=False)
    assert len(tree(tmp_path)) == 1
    with new_folder(folder):  # this one is alive: another must leave it alone
        assert len(tree(tmp_path)) == 1
        write_folder(tmp_path / "folder", replace=True)
        assert len([name for name in tree(tmp_path) if name.endswith("unfinished")]) == 1
        remove(folder)
    assert tree(tmp_path) == ["folder", "folder/manifest.json"]


def test_replacement_that_was_cut_short_is_undone(tmp_path):
    folder = tmp_path / "folder"
    write_folder(folder, "old")
    os.rename(folder, tmp_path / ".folder.former")
    with pytest.raises(FileExistsError):
        write_folder(folder)
    assert (folder / "inner" / "a").read_text() == "old"


@pytest.mark.parametrize("number", range(7))
def test_full_disk_at_any_sync_is_one_sentence_and_leaves_what_was_there(
    tmp_path, monkeypatch, number
):
    folder = tmp_path / "folder"
    write_folder(folder, "old")
    before = tree(tmp_path)
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) > number:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    try:
        write_folder(folder, "new", replace=True)
    except DiskFullError as error:
        assert "The disk is full" in str(error) and str(folder) in str(error)
        assert number < 6
    assert tree(tmp_path) == before
    assert (folder / "inner" / "a").read_text() == ("old" if number < 4 else "new")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: Os { code: 28, kind: StorageFull }"),
        Exception("No space left on device (os error 28)"),
    ],
    ids=["full", "quota", "safetensors", "tokenizers"],
)
def test_full_disk_is_known_in_the_words_of_every_library(tmp_path, error):
    with pytest.raises(DiskFullError, match="The disk is full"), naming_full_disk(tmp_path):
        raise error


def test_other_errors_pass_unchanged(tmp_path):
    unexplained = RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    for error in (ValueError("code: 280"), PermissionError(13, "no"), unexplained):
        with pytest.raises(type(error)) as caught, naming_full_disk(tmp_path / "x"):
            raise error
        assert caught.value is error
