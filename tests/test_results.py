"""Claims about result files."""

import json

import pytest

from gcattn.results import read_result, write_result


def write(folder, name="loss", metrics=None):
    return write_result(
        name, {"steps": 3}, metrics or {"loss": 2.5}, folder=folder, seed=7, trials=3, command="x"
    )


def test_a_result_reads_as_it_was_written(tmp_path):
    result = read_result(write(tmp_path / "made"))
    assert result["config"] == {"steps": 3}
    assert result["metrics"] == {"loss": 2.5}
    assert (result["seed"], result["trials"], result["command"]) == (7, 3, "x")


def test_a_result_says_where_it_comes_from(tmp_path):
    result = read_result(write(tmp_path))
    assert result["hardware"]["cores"] >= 1
    assert result["hardware"]["cpu"]
    assert result["software"]["torch"]
    assert result["software"]["python"]
    assert result["source"]["version"]


def test_a_result_that_cannot_be_written_leaves_the_former_one(tmp_path):
    file = write(tmp_path)
    for bad in (float("nan"), object()):
        with pytest.raises(ValueError, match="'loss' cannot be written as JSON"):
            write(tmp_path, metrics={"loss": bad})
    assert read_result(file)["metrics"] == {"loss": 2.5}
    assert list(tmp_path.iterdir()) == [file]


def test_an_unwritable_folder_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write(tmp_path / "file")


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"name": "loss"})])
def test_other_files_are_refused(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="is not a result file"):
        read_result(file)
