"""The released checkpoints load from their folders and find needles in text they never saw."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from gcattn import DRTForCausalLM, load_tokenizer
from gcattn.cli import main
from gcattn.evals.model_loading import load_causal_lm

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
RELEASED = ["gcattn-tiny", "gcattn-12m", "gcattn-39m"]
pytestmark = pytest.mark.skipif(
    not CHECKPOINTS.exists(), reason="the source distribution holds no checkpoint"
)


@pytest.mark.parametrize("name", RELEASED)
def test_files_are_small_and_complete(name):
    files = list((CHECKPOINTS / name).iterdir())
    assert {"README.md", "config.json", "tokenizer.json"} <= {file.name for file in files}
    assert any(file.name.startswith("training") for file in files)
    # an embedding is one tensor, which no two files can share
    assert all(file.stat().st_size <= 17_000_000 for file in files)
    assert sum(file.stat().st_size for file in files) <= 100_000_000


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("gcattn-tiny", "number"),
        pytest.param("gcattn-tiny", "multi-key", marks=pytest.mark.slow),
        pytest.param("gcattn-12m", "single,two-hop,number", marks=pytest.mark.slow),
        pytest.param("gcattn-39m", "single,worded-single,number", marks=pytest.mark.slow),
    ],
)
def test_checkpoint_answers_questions_about_made_up_text(name, tasks, tmp_path, monkeypatch):
    # 64K tokens of it, not a million
    monkeypatch.setattr("gcattn.evals.needle_haystack._NUM_DOCUMENTS", 8)
    command = ["eval", "needle", str(CHECKPOINTS / name), "--tasks", tasks, "--lengths", "1k"]
    command += ["--depths", "4", "--samples", "1", "--batch-size", "4"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", str(tmp_path / "needle.json")])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "needle.json").read_text())
    for row in result["metrics"]["by_length"]:
        assert row["trials"] == 4 and row["exact"] >= 3


@pytest.mark.parametrize("name", RELEASED)
def test_files_are_those_of_the_manifest(name):
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(CHECKPOINTS / name)])
    assert ended.value.code == 0


def test_a_field_that_no_tensor_shows_cannot_be_changed_unnoticed(tmp_path):
    folder = shutil.copytree(CHECKPOINTS / "gcattn-tiny", tmp_path / "model")
    config = (folder / "config.json").read_text()
    assert '"chunk_size": 16' in config
    (folder / "config.json").write_text(config.replace('"chunk_size": 16', '"chunk_size": 32'))
    with pytest.raises(ValueError, match=r"config\.json"):
        load_causal_lm(str(folder))


def test_generation_stops_at_strings():
    folder = CHECKPOINTS / "gcattn-tiny"
    model, tokenizer = DRTForCausalLM.from_pretrained(folder).eval(), load_tokenizer(folder)
    ids = tokenizer("the house by the river", return_tensors="pt").input_ids
    torch.manual_seed(0)
    free = model.generate(ids, max_new_tokens=24, do_sample=False)
    # what is written anyway, from the sixth new token on
    stop = tokenizer.decode(free[0, ids.shape[1] + 5 : ids.shape[1] + 7])
    stopped = model.generate(
        ids, max_new_tokens=24, do_sample=False, stop_strings=stop, tokenizer=tokenizer
    )
    assert stopped.shape[1] < free.shape[1]
    assert tokenizer.decode(stopped[0, ids.shape[1] :]).endswith(stop)
    assert torch.equal(stopped[0], free[0, : stopped.shape[1]])
