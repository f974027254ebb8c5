"""Claims about `gcattn eval compare`: it trains, reports, resumes and says what failed."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gcattn import cli
from gcattn.data import TokenShardWriter, load_tokenizer
from gcattn.results import read_result

SUITE = """
name: small
base:
  model: {{preset: drt_tiny, hidden_size: 16, intermediate_size: 24, num_lower_layers: 1}}
  data: {{train: {data}, sequence_length: 64}}
  training:
    {{steps: 2, batch_size: 1, learning_rate: 1.0e-3, min_learning_rate: 1.0e-4, log_every: 1}}
models:
  window: {{changes: {{model: {{retrieval_method: none}}}}}}
  drt: {{}}
learning_rates: [1.0e-3]
positions: [32, 128]
texts:
  text: {{data: [{data}], length: 128}}
window: window
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    tokenizer, draw = load_tokenizer(), np.random.default_rng(0)
    with TokenShardWriter(folder / "data", tokenizer, "test") as writer:
        for _ in range(3):
            ids = draw.integers(2, 16_000, 150)
            writer.append(ids, len(tokenizer.decode(ids).encode()))
    (folder / "suite.yaml").write_text(SUITE.format(data=folder / "data"))
    return folder


def compare(folder, *arguments):
    out, runs = folder / "compare-small.json", folder / "runs"
    command = ["eval", "compare", str(folder / "suite.yaml")]
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--runs", str(runs), "--out", str(out), *arguments])
    return end.value.code, out


@pytest.mark.slow
def test_a_suite_is_trained_reported_and_resumed(folder, capsys):
    code, out = compare(folder, "--models", "window")
    assert (code, read_result(out)["metrics"]["unfinished"]) == (0, ["drt-lr0.001-seed0"])

    code, out = compare(folder)
    said = capsys.readouterr()
    assert code == 0
    assert "1 of 2 runs are finished already" in said.err
    metrics = read_result(out)["metrics"]
    assert metrics["unfinished"] == []
    drt = metrics["models"]["drt"]["texts"]["text"]
    assert drt["num_documents"] == 3
    assert len(drt["off"]["mean"]) == 2
    assert drt["gain"]["mean"][0] == pytest.approx(
        metrics["models"]["window"]["texts"]["text"]["loss"]["mean"][0] - drt["loss"]["mean"][0],
        abs=1e-4,
    )
    assert "drt" in said.out
    assert max(map(len, said.out.splitlines())) <= 100

    (folder / "runs" / "drt-lr0.001-seed0" / "evaluation.json").unlink()
    code, out = compare(folder, "--report-only")
    assert json.loads(out.read_text())["metrics"]["unfinished"] == ["drt-lr0.001-seed0"]


@pytest.mark.slow
def test_a_run_on_two_devices_is_that_on_one(folder, tmp_path):
    share = ["base.training.gradient_accumulation=2", "--models", "window"]
    results = {}
    for devices in (1, 2):
        out = tmp_path / str(devices) / "compare-small.json"
        more = ["--devices", "2", "--devices-per-run", str(devices), "--out", str(out)]
        code, _ = compare(folder, *share, *more, "--runs", str(tmp_path / str(devices)))
        assert code == 0
        results[devices] = read_result(out)["metrics"]["models"]["window"]
    assert [results[devices]["devices"] for devices in (1, 2)] == [1, 2]
    assert results[1]["tokens"] == results[2]["tokens"] == 2 * 2 * 64
    loss = {d: result["texts"]["text"]["loss"]["mean"] for d, result in results.items()}
    assert loss[2] == pytest.approx(loss[1], abs=2e-4)


@pytest.mark.slow
def test_a_run_that_fails_is_named_with_its_log(folder, capsys):
    code, _ = compare(folder, f"base.data.train={folder / 'nowhere'}", "--models", "drt")
    said = capsys.readouterr().err
    assert code != 0
    assert "drt-lr0.001-seed0 failed" in said
    assert "drt-lr0.001-seed0.log" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "dtr"], "dtr"),
        (["positions=[2,1]"], "positions must be rising"),
        (["--devices", "1", "--devices-per-run", "2"], "needs as many GPUs; there are 1."),
    ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, message):
    code, _ = compare(folder, *arguments)
    said = capsys.readouterr().err
    assert (code, len(said.splitlines())) == (2, 1)
    assert message in said


@pytest.mark.slow
def test_a_comparison_that_is_stopped_keeps_a_checkpoint_of_the_run(folder, tmp_path):
    runs, suite = tmp_path / "runs", str(folder / "suite.yaml")
    program = [
        sys.executable,
        "-m",
        "gcattn.cli",
        "eval",
        "compare",
        suite,
        "base.training.steps=10000",
    ]
    command = [*program, "--runs", str(runs), "--out", str(tmp_path / "compare-small.json")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = runs / "window-lr0.001-seed0.log"
    while "step 3/" not in (log.read_text() if log.is_file() else ""):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 130
    assert list((runs / "window-lr0.001-seed0").glob("checkpoint-*"))
