"""A checkpoint has its name only when it is whole, and what is not whole is passed over."""

import pytest

from gcattn.train.checkpoints import (
    MANIFEST,
    find_damage,
    newest_checkpoint,
    publish_checkpoint,
    remove_old_checkpoints,
)


@pytest.fixture
def output(tmp_path):
    """A run with three whole checkpoints."""
    for step in (2, 10, 9):
        unfinished = tmp_path / ".unfinished"
        (unfinished / "shards").mkdir(parents=True)
        (unfinished / "model.bin").write_bytes(b"x" * step)
        (unfinished / "shards" / "0.bin").write_bytes(b"y")
        publish_checkpoint(unfinished, tmp_path, step)
        assert not unfinished.exists()
    return tmp_path


def test_newest_is_by_step(output):
    assert newest_checkpoint(output) == (output / "checkpoint-10", [])


def test_what_is_not_whole_is_passed_over_and_reported(output):
    (output / "checkpoint-11").mkdir()
    (output / "checkpoint-10" / "model.bin").write_bytes(b"short")
    (output / "checkpoint-9" / "shards" / "0.bin").unlink()
    (output / "checkpoint-x").mkdir()
    folder, complaints = newest_checkpoint(output)
    assert folder == output / "checkpoint-2"
    assert complaints == [
        f"Ignoring checkpoint-11: it has no {MANIFEST}, so it was never finished.",
        f"Ignoring checkpoint-10: {output}/checkpoint-10/model.bin is damaged: it has 5 bytes "
        "instead of 10.",
        f"Ignoring checkpoint-9: {output}/checkpoint-9/shards/0.bin is missing.",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": []}'])
def test_damaged_manifest_is_damage(output, text):
    (output / "checkpoint-2" / MANIFEST).write_text(text)
    file = output / "checkpoint-2" / MANIFEST
    assert find_damage(file.parent) == f"{file} is damaged."


def test_saving_a_step_again_replaces_it(output):
    unfinished = output / ".unfinished"
    unfinished.mkdir()
    (unfinished / "model.bin").write_bytes(b"new")
    folder = publish_checkpoint(unfinished, output, 10)
    assert find_damage(folder) is None
    assert (folder / "model.bin").read_bytes() == b"new"


def test_only_the_newest_are_kept(output):
    remove_old_checkpoints(output, keep=1)
    assert newest_checkpoint(output)[0] == output / "checkpoint-10"
    assert len(list(output.glob("checkpoint-*"))) == 1


def test_no_run_has_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") == (None, [])
