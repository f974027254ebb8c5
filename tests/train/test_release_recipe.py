"""The recipe of the released model: its stages follow each other and fit into its budget."""

import subprocess
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from gcattn.data import TokenShards
from gcattn.data.needle_tasks import NeedleRows
from gcattn.data.synthetic_shards import prepare_synthetic_shards
from gcattn.models import PRESETS
from gcattn.train.config import load_config
from gcattn.train.run import run_training

EXAMPLES = Path(__file__).parents[2] / "examples"
STAGES = range(1, 6)
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


def stage_file(stage):
    return EXAMPLES / f"release_34m_{stage}.yaml"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, split in {
        "train": "train",
        "train-with-code": "train",
        "validation": "validation",
    }.items():
        prepare_synthetic_shards(f"data/release/{name}", 3, 2048, 0, split=split)


def test_every_stage_goes_on_from_the_one_before_and_its_tasks_fit_its_rows(data):
    for stage in STAGES:
        config = load_config(stage_file(stage))
        assert config.output == f"runs/release_34m_{stage}"
        if stage > 1:
            assert config.model.from_ == f"runs/release_34m_{stage - 1}/model"
        shards, length = TokenShards(config.data.train), config.data.sequence_length
        row = NeedleRows(shards, length, config.tasks)[0]
        assert row["input_ids"].shape == (length,)


@pytest.mark.slow
def test_every_stage_trains(data):
    for stage in STAGES:
        changes = ["training.steps=1", "training.batch_size=1", "training.compile=false"]
        # an exercise of every task has room; the full length would take minutes here
        changes += [
            "data.sequence_length=1260",
            "training.num_workers=0",
            "training.eval_batches=1",
        ]
        if stage == 1:
            changes += [f"model.{name}={value}" for name, value in SMALL.items()]
        outcome = run_training(load_config(stage_file(stage), changes))
        assert outcome.model_folder == Path(f"runs/release_34m_{stage}/model")
    model = AutoModelForCausalLM.from_pretrained(outcome.model_folder)
    assert model.config.num_retrieval_groups == 2


def test_the_released_model_fits_into_100_megabytes_and_the_budget():
    first = load_config(stage_file(1))
    config = PRESETS[first.model.preset](vocab_size=16_384, **first.model.overrides)
    assert 2 * config.count_parameters() < 100e6
    tokens = 0
    for stage in STAGES:
        run = load_config(stage_file(stage))
        # four GPUs, or fewer with as much accumulation
        tokens += 4 * run.training.batch_size * run.training.steps * run.data.sequence_length
    assert 1.5e9 < tokens < 1.6e9


@pytest.mark.parametrize(("gpus", "accumulation"), [("4", "1"), ("2", "2"), ("1", "4")])
def test_one_command_runs_what_is_not_finished(gpus, accumulation, tmp_path):
    torchrun = tmp_path / "bin/torchrun"
    torchrun.parent.mkdir()
    torchrun.write_text('#!/bin/sh\necho "$@"\n')
    torchrun.chmod(0o755)
    (tmp_path / "runs/release_34m_1/model").mkdir(parents=True)
    done = subprocess.run(
        ["sh", EXAMPLES / "release_34m.sh", gpus, "training.seed=1"],
        cwd=tmp_path,
        env={"PATH": f"{torchrun.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        f"--nproc_per_node {gpus} -m gcattn.cli train examples/release_34m_{stage}.yaml "
        f"training.gradient_accumulation={accumulation} training.seed=1 --resume"
        for stage in STAGES[1:]
    ]


def test_other_numbers_of_gpus_are_refused(tmp_path):
    script = ["sh", EXAMPLES / "release_34m.sh", "3"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "must be 1, 2 or 4, got 3" in done.stderr) == (2, True)
