"""The released checkpoints load from their folders and find needles in text they never saw."""

import json
from pathlib import Path

import pytest

from gcattn.cli import main

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
pytestmark = pytest.mark.skipif(
    not CHECKPOINTS.exists(), reason="the source distribution holds no checkpoint"
)


@pytest.mark.parametrize("name", ["gcattn-tiny", "gcattn-12m"])
def test_files_are_small_and_complete(name):
    files = list((CHECKPOINTS / name).iterdir())
    assert {"README.md", "config.json", "tokenizer.json"} <= {file.name for file in files}
    assert any(file.name.startswith("training") for file in files)
    assert all(file.stat().st_size <= 15_000_000 for file in files)


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("gcattn-tiny", "number,multi-key"),
        ("gcattn-12m", "single,two-hop,number"),
    ],
)
def test_checkpoint_answers_questions_about_made_up_text(name, tasks, tmp_path):
    command = ["eval", "needle", str(CHECKPOINTS / name), "--tasks", tasks, "--lengths", "1k"]
    command += ["--depths", "4", "--samples", "1", "--batch-size", "4"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", str(tmp_path / "needle.json")])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "needle.json").read_text())
    for row in result["metrics"]["by_length"]:
        assert row["trials"] == 4 and row["exact"] >= 3
