"""Runs of a comparison are processes side by side; each has its GPUs and its share of the cores."""

import sys

import pytest

from gcattn.compare import runs
from gcattn.compare.suite import Run
from gcattn.train.config import config_from_tree

PRINT = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ.get('OMP_NUM_THREADS'))"


@pytest.mark.parametrize(
    ("devices", "given", "threads"), [([0, 1], None, "1"), ([0, 1], "3", "3"), ([0], None, "None")]
)
def test_processes_that_share_a_machine_take_one_thread_unless_told(
    tmp_path, monkeypatch, devices, given, threads
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{PRINT}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(runs.sys, "executable", str(program))
    models = [Run("window", 1e-3, seed) for seed in range(2)]
    failed = runs.run_all(
        models, tmp_path / "runs", [], devices=[[d] for d in devices], say=lambda _: None
    )
    assert failed == []
    logs = sorted(path.read_text() for path in (tmp_path / "runs").glob("*.log"))
    assert logs == sorted(f"{device} {threads}\n" for device in (devices * 2)[:2])


def test_a_run_on_several_devices_is_launched_with_a_process_for_each(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $*"\n')
    program.chmod(0o755)
    monkeypatch.setattr(runs.sys, "executable", str(program))
    models = [Run("window", 1e-3, seed) for seed in range(2)]
    failed = runs.run_all(
        models, tmp_path / "runs", ["eval"], devices=[[0, 1], [2, 3]], say=lambda _: None
    )
    assert failed == []
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2 -m gcattn.cli eval"
    logs = sorted(path.read_text() for path in (tmp_path / "runs").glob("*.log"))
    assert logs == [
        f"{own} {launch} {m.name}\n" for own, m in zip(("0,1", "2,3"), models, strict=True)
    ]


def test_a_step_is_shared_by_the_devices_of_a_run():
    suite = {
        "model": {"preset": "drt_tiny"},
        "data": {"train": "none", "sequence_length": 150},
        "training": {"steps": 1, "batch_size": 2, "gradient_accumulation": 4},
        "output": "none",
    }
    config = config_from_tree(suite)
    assert runs.shared_among(config, 1) == config
    assert runs.shared_among(config, 2).training.gradient_accumulation == 2
    with pytest.raises(ValueError, match=r"must be a multiple of that; got 4\."):
        runs.shared_among(config, 3)
