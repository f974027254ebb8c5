"""The released checkpoint loads from its folder and finds needles in text it has never seen."""

import json
from pathlib import Path

import pytest

from gcattn.cli import main

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "gcattn-tiny"
pytestmark = pytest.mark.skipif(
    not CHECKPOINT.exists(), reason="the source distribution holds no checkpoint"
)


def test_files_are_small_and_complete():
    names = {file.name for file in CHECKPOINT.iterdir()}
    assert {"README.md", "config.json", "tokenizer.json", "training.yaml"} <= names
    assert all(file.stat().st_size <= 15_000_000 for file in CHECKPOINT.iterdir())


def test_checkpoint_answers_questions_about_made_up_text(tmp_path):
    command = ["eval", "needle", str(CHECKPOINT), "--tasks", "number,multi-key", "--lengths", "1k"]
    command += ["--depths", "4", "--samples", "1", "--batch-size", "4"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", str(tmp_path / "needle.json")])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "needle.json").read_text())
    for row in result["metrics"]["by_length"]:
        assert row["trials"] == 4 and row["exact"] >= 3
