"""Runs of a comparison are processes side by side; each has its GPU and its share of the cores."""

import sys

import pytest

from gcattn.compare import runs
from gcattn.compare.suite import Run

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
    failed = runs.run_all(models, tmp_path / "runs", [], devices=devices, say=lambda _: None)
    assert failed == []
    logs = sorted(path.read_text() for path in (tmp_path / "runs").glob("*.log"))
    assert logs == sorted(f"{device} {threads}\n" for device in (devices * 2)[:2])
