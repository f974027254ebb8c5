"""A byte that changes after a folder was written is noticed, and the file is named."""

import json

import pytest

from gcattn.storage.manifest import (
    MANIFEST,
    DamagedFolderError,
    check_folder,
    damages,
    read_manifest,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "weights.bin").write_bytes(bytes(range(40)))
    (tmp_path / "config.json").write_text('{"a": 1}')
    write_manifest(tmp_path)
    return tmp_path


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_flipped_byte_anywhere_names_its_file(folder):
    for name in ("inner/weights.bin", "config.json"):
        for position in range((folder / name).stat().st_size):
            flip(folder / name, position)
            with pytest.raises(DamagedFolderError, match=name) as error:
                check_folder(folder)
            assert "\n" not in str(error.value)
            flip(folder / name, position)
    check_folder(folder)


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_flipped_byte_of_the_manifest_is_noticed_or_changes_no_meaning(folder, step):
    meaning = read_manifest(folder)
    for position in range(0, (folder / MANIFEST).stat().st_size, step):
        flip(folder / MANIFEST, position)
        assert damages(folder) or read_manifest(folder) == meaning
        flip(folder / MANIFEST, position)


def test_missing_and_cut_files_are_named(folder):
    (folder / "config.json").unlink()
    (folder / "inner" / "weights.bin").write_bytes(b"short")
    assert [damage.split("/")[-1] for damage in damages(folder)] == [
        "config.json is missing.",
        "weights.bin is damaged: it has 5 bytes instead of 40.",
    ]


def test_large_files_are_hashed_only_when_asked(folder):
    flip(folder / "inner" / "weights.bin", 3)
    check_folder(folder, hash_up_to=39)
    with pytest.raises(DamagedFolderError, match=r"weights\.bin has changed"):
        check_folder(folder, hash_up_to=None)


def test_first_version_knows_sizes_only(folder):
    old = {"step": 3, "files": {"config.json": 8}}
    (folder / MANIFEST).write_text(json.dumps(old))
    check_folder(folder)
    flip(folder / "config.json", 0)
    check_folder(folder)
    (folder / "config.json").write_text("")
    with pytest.raises(DamagedFolderError, match="has 0 bytes instead of 8"):
        check_folder(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "3",
        '{"files": []}',
        '{"files": {"a": "3"}}',
        '{"files": {"a": true}}',
        '{"files": {"../a": 3}}',
        '{"files": {"/etc/passwd": 3}}',
        '{"version": 2, "files": {"a": 3}}',
        '{"version": 2, "files": {"a": {"bytes": 3}}}',
        '{"version": 2, "files": {"a": {"bytes": 3, "sha256": 4}}}',
        '{"version": 3, "files": {}}',
        '{"version": [], "files": {}}',
        "[" * 100_000,
    ],
)
def test_damaged_manifest_is_one_line(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(DamagedFolderError, match=MANIFEST) as error:
        check_folder(folder)
    assert "\n" not in str(error.value)


def test_folder_without_a_manifest_passes(tmp_path):
    check_folder(tmp_path)
