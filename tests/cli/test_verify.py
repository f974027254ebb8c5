"""`gcattn verify` reads everything and names what has changed."""

import pytest
import torch

from gcattn import DRTCache, save_cache
from gcattn.cli import main
from gcattn.storage.whole import new_folder
from gcattn.testing import random_config, random_model, random_tokens


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["verify", *map(str, arguments)])
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two"):
        with new_folder(tmp_path / "run" / name) as unfinished:
            (unfinished / "weights.bin").write_bytes(bytes(100))
            (unfinished / "config.json").write_text("{}")
    return tmp_path / "run"


def test_untouched_folder_passes_with_all_below_it(folder, capsys):
    code, out, err = run(capsys, folder)
    assert (code, err) == (0, "")
    assert out == "4 files, 0.0 MB: as they were written\n"


def test_flipped_byte_is_one_line_with_the_file_and_exit_code_2(folder, capsys):
    file = folder / "two" / "weights.bin"
    file.write_bytes(bytes(99) + b"\1")
    code, out, err = run(capsys, folder)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"gcattn: error: {file} has changed since it was written")
    assert run(capsys, folder / "one")[0] == 0


def test_change_that_was_meant_is_recorded(folder, capsys):
    (folder / "one" / "config.json").write_text('{"a": 1}')
    assert run(capsys, folder)[0] == 2
    assert run(capsys, folder / "one", "--record")[0] == 0
    assert run(capsys, folder)[0] == 0


def test_folder_without_checksums_is_refused_until_they_are_recorded(tmp_path, capsys):
    (tmp_path / "note").write_text("mine")
    code, _, err = run(capsys, tmp_path)
    assert code == 2 and "has no manifest.json to compare with" in err
    assert run(capsys, tmp_path, "--record")[0] == 0
    assert run(capsys, tmp_path)[1].startswith("1 files")
    code, _, err = run(capsys, tmp_path / "nowhere")
    assert code == 2 and "There is no folder" in err


def test_a_saved_cache_is_compared_by_its_manifest(tmp_path, capsys):
    model = random_model(random_config(3, chunk_size=6))
    cache = DRTCache(model.config)
    with torch.no_grad():
        model(random_tokens(model.config, 1, 50), cache=cache)
    save_cache(cache, tmp_path / "cache")
    code, out, _ = run(capsys, tmp_path / "cache")
    assert code == 0 and "as they were written" in out
