"""The benchmarks write results and pictures, and nothing where an operator is wrong."""

import importlib
import json
import re
from dataclasses import replace

import pytest
import torch

from benchmarks.contestant import PreparedCall
from benchmarks.contestants import contestants
from benchmarks.extremes import READERS, with_readers
from benchmarks.inputs import random_inputs
from benchmarks.shapes import OperatorShape
from benchmarks.timing import Timing
from gcattn.cli.program import run_command
from gcattn.results import read_result

HUGE = "1" + 30 * "0"
OPERATOR = (
    "--heads 2 --kv-heads 1 --head-dim 8 --top-k 2 --chunk-size 8 --window 12 "
    "--warmup-ms 0 --measure-ms 1 --device cpu"
)
MEASURED = {"median_ms": 2.0}
DRT = "drt, 2 of 2 layers read"


def run(capsys, command):
    """Run a benchmark and return its exit code, standard output and standard error."""
    name, *arguments = command.split()
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit) as stop:
        run_command(module.command, f"benchmarks.{name}", arguments)
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def written(folder, name):
    """Return a result after checking what every result of a benchmark holds."""
    result = read_result(folder / f"{name}.json")
    assert result["name"] == name
    assert result["seed"] == 0 and result["trials"] >= 2
    assert result["software"]["torch"] and result["hardware"]["cpu"]
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return result


@pytest.mark.parametrize("name", ["check", "decode", "devices", "op", "prefill", "train", "memory"])
def test_help_shows_no_bound_that_nobody_reaches(capsys, name):
    code, shown, _ = run(capsys, f"{name} --help")
    assert code == 0 and "--help" in shown
    assert re.findall(r"\d{9,}", shown) == []


@pytest.mark.slow
def test_op_writes_result_picture_and_table(capsys, tmp_path):
    command = f"op --lengths 32,64 {OPERATOR} --out {tmp_path}"
    code, out, err = run(capsys, command)
    assert code == 0, err
    result = written(tmp_path, "operator")
    assert [s["length"] for s in result["config"]["shapes"]] == [32, 64]
    assert result["trials"] >= 10
    for line in ("gather + SDPA", "B1 L64 H2 G1 D8 K2 S8", "NSA (fla): not installed"):
        assert line in out
    assert "…" not in out
    assert f"torch {result['software']['torch']}" in out and "commit" in out


@pytest.mark.slow
def test_op_writes_a_picture_of_the_anchor_shapes(capsys, tmp_path, monkeypatch):
    small = OperatorShape(
        length=32, heads=2, kv_heads=2, head_dim=8, top_k=2, chunk_size=8, dtype="float32"
    )
    monkeypatch.setattr(
        "benchmarks.shapes.anchor_shapes", lambda dtype, length: [small, replace(small, batch=2)]
    )
    command = f"op --shapes all --length 64 {OPERATOR} --only gcattn --out {tmp_path}"
    code, _, err = run(capsys, command)
    assert code == 0, err
    shapes = written(tmp_path, "operator")["metrics"]["shapes"]
    assert [s["shape"]["batch"] for s in shapes] == [1, 2, 1]
    assert [list(s["contestants"]) for s in shapes] == [["gcattn"]] * 3
    assert (tmp_path / "operator_shapes.png").read_bytes().startswith(b"\x89PNG")


def test_op_measures_short_shapes_on_a_cpu(capsys, tmp_path, monkeypatch):
    measured = []

    def record(shapes, *arguments, **options):
        measured.extend(shapes)
        raise ValueError("enough")

    monkeypatch.setattr("benchmarks.op_timing.bench_operator", record)
    run(capsys, f"op --shapes all --device cpu --out {tmp_path}")
    assert len(measured) == 5
    assert max(shape.batch * shape.length for shape in measured) <= 1024


def test_op_prints_and_writes_no_number_when_an_operator_is_wrong(capsys, tmp_path, monkeypatch):
    everyone = contestants()
    right = everyone[0]

    def prepare(inputs):
        call = right.prepare(inputs)
        return PreparedCall(lambda: 1.02 * call.run(), call.leaves, call.as_columns)

    wrong = replace(right, prepare=prepare)
    monkeypatch.setattr("benchmarks.options.contestants", lambda: [wrong, *everyone[1:]])
    code, out, err = run(capsys, f"op --lengths 32 {OPERATOR} --out {tmp_path}")
    assert code == 2
    assert out == ""
    assert "benchmarks.op: error: gcattn is wrong: the output is off by 0.02" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_model_writes_result_and_picture(capsys, tmp_path):
    command = (
        "prefill --preset drt_tiny --lengths 128,512 --segment-length 256 --trials 2 "
        f"--full-attention --device cpu --out {tmp_path}"
    )
    code, out, err = run(capsys, command)
    assert code == 0, err
    result = written(tmp_path, "prefill")
    assert result["config"]["data"] == "random token ids"
    assert set(result["metrics"]["drt_tiny"]) == {"gcattn", "full attention (SDPA)"}
    assert "tokens/s" in out


@pytest.mark.slow
def test_train_writes_result_and_picture(capsys, tmp_path):
    command = (
        "train --preset drt_tiny --length 128 --batch-tokens 128 --intervals 1,2 --steps 2 "
        f"--warmup 1 --no-compile --device cpu --out {tmp_path}"
    )
    code, out, err = run(capsys, command)
    assert code == 0, err
    result = written(tmp_path, "training_steps")
    assert result["config"]["compile"] is False
    assert result["metrics"]["measured_matmul_tflop_per_s"] > 0
    models = result["metrics"]["presets"]["drt_tiny"]["lengths"]["128"]["models"]
    drts = ["drt, 2 of 2 layers read", "drt, 1 of 2 layers read"]
    assert list(models) == [*drts, "sliding window", "sliding window, +2 layers"]
    assert "ms per step" in out


@pytest.mark.slow
def test_decode_writes_result_and_picture(capsys, tmp_path):
    command = (
        "decode --preset drt_tiny --lengths 64,512 --tokens 20 --batch 2 "
        f"--full-attention --device cpu --out {tmp_path}"
    )
    code, out, err = run(capsys, command)
    assert code == 0, err
    result = written(tmp_path, "decoding")
    assert result["config"]["batch"] == 2
    assert list(result["metrics"]["drt_tiny"]) == [
        "gcattn, device memory",
        "gcattn, device memory, generate()",
        "gcattn, host memory",
        "gcattn, host memory, generate()",
        "full attention (SDPA)",
        "full attention (SDPA), compiled, static cache",
    ]
    assert "gcattn, host memory" in out


@pytest.mark.parametrize(
    ("command", "measure", "file", "kept"),
    [
        (
            "decode --preset drt_tiny --lengths 64,512",
            "time_tokens",
            "decoding",
            {"drt_tiny": {"gcattn, device memory": {"64": MEASURED}}},
        ),
        (
            "prefill --preset drt_tiny --lengths 64,128",
            "_measure",
            "prefill",
            {"drt_tiny": {"gcattn": {"lengths": {"64": MEASURED}}}},
        ),
        (
            "memory --preset drt_tiny --lengths 64,128 --tiers disk --build-tokens 64",
            "_asked",
            "memory",
            {"drt_tiny": {"tiers": {"disk": {"64": MEASURED}}}},
        ),
        (
            "train --preset drt_tiny --lengths 64",
            "_time_steps",
            "training_steps",
            {"presets": {"drt_tiny": {"lengths": {"64": {"models": {DRT: MEASURED}}}}}},
        ),
        (
            "extremes --landmarks 64 --hidden-size 8 --length 128",
            "time_call",
            "extremes",
            {"scan": [{"landmarks": 64, "queries": 1} | MEASURED]},
        ),
        (
            "compile --preset drt_tiny --tokens 64",
            "_in_a_process",
            "compilation",
            {"not compiled": MEASURED},
        ),
    ],
)
def test_an_interrupted_benchmark_keeps_the_rows_that_it_measured(
    capsys, tmp_path, monkeypatch, command, measure, file, kept
):
    rows = [Timing.of([2.0])]

    def interrupted(*arguments, **options):
        if not rows:
            raise KeyboardInterrupt
        timing = rows.pop()
        return timing if measure == "time_call" else timing.as_dict() | {"tokens_per_second": 8.0}

    monkeypatch.setattr(f"benchmarks.{command.split()[0]}.{measure}", interrupted)
    code, out, err = run(capsys, f"{command} --device cpu --out {tmp_path}")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1].endswith("error: interrupted")
    assert_holds(read_result(tmp_path / f"{file}.json")["metrics"], kept)


def assert_holds(found, expected):
    """Check that all that is expected is there, among more."""
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for each, wanted in zip(found, expected, strict=True):
            assert_holds(each, wanted)
    elif isinstance(expected, dict):
        for key, wanted in expected.items():
            assert_holds(found[key], wanted)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("op --only nobody", "--only knows gcattn"),
        ("op --length 100", "multiple of chunk_size"),
        ("op --length 128 --dtype int8", "dtype must be one of"),
        ("op --device tpu", "'tpu' is not a device"),
        ("prefill --preset drt_huge", "--preset must be of drt_tiny"),
        ("prefill --segment-length 1k,2k", "--segment-length must be one number"),
        ("train --intervals 1,0", "--intervals must be numbers from 1"),
        ("decode --preset drt_tiny --lengths 16 --device cpu", "must hold two chunks"),
    ],
)
def test_wrong_options_are_one_line(capsys, tmp_path, command, message):
    code, out, err = run(capsys, f"{command} --out {tmp_path}")
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_results_are_json_without_infinities(capsys, tmp_path):
    run(capsys, f"op --lengths 32 {OPERATOR} --only gcattn --out {tmp_path}")

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "operator.json").read_text(), parse_constant=refuse)


@pytest.mark.slow
def test_op_keeps_its_numbers_and_fails_when_an_operator_of_ours_fails(
    capsys, tmp_path, monkeypatch
):
    right, *_ = contestants()

    def prepare(inputs):
        raise KeyError("broken")

    broken = replace(right, name="broken", computes="full_attention", prepare=prepare)
    monkeypatch.setattr("benchmarks.options.contestants", lambda: [right, broken])
    code, out, err = run(capsys, f"op --lengths 32 {OPERATOR} --out {tmp_path}")
    assert code == 1
    assert "gcattn" in out and "KeyError: 'broken'" in out
    assert "failed: broken at B1 L32 H2 G1 D8 K2 S8: KeyError" in err
    metrics = written(tmp_path, "operator")["metrics"]
    assert metrics["shapes"][0]["contestants"]["gcattn"]["forward"]["median_ms"] > 0


@pytest.mark.slow
def test_extremes_measures_scan_few_queries_and_popularity(capsys, tmp_path):
    options = "--landmarks 512,1k --hidden-size 16 --length 256 --measure-ms 1 --device cpu"
    code, out, err = run(capsys, f"extremes {options} --out {tmp_path}")
    assert code == 0, err
    result = read_result(tmp_path / "extremes.json")
    assert result["trials"] >= 10 and result["software"]["torch"]
    metrics = result["metrics"]
    assert [(r["landmarks"], r["queries"]) for r in metrics["scan"]] == [
        (512, 1),
        (512, 64),
        (1024, 1),
        (1024, 64),
    ]
    assert all(row["median_ms"] > 0 and row["read_ms"] > 0 for row in metrics["scan"])
    assert [row["slots"] for row in metrics["few_queries"]] == [1, 2, 4, 8]
    assert [row["readers"] for row in metrics["popularity"]] == list(READERS)
    assert "read uniformly" in out and "gathered first" in out


def test_crowded_readers_read_what_lies_before_them(tmp_path):
    shape = OperatorShape(
        length=96, heads=2, kv_heads=2, head_dim=8, top_k=4, chunk_size=8, dtype="float32"
    )
    inputs = random_inputs(shape, torch.device("cpu"), 0)
    for name in READERS:
        indices = with_readers(inputs, name).chunk_indices
        own = torch.arange(12)[:, None]
        assert (indices < own).all()
        assert (indices[:, 4:] >= 0).sum() >= 8 * 3
    assert (with_readers(inputs, READERS[1]).chunk_indices[0, -1] == torch.arange(4)).all()
    assert (with_readers(inputs, READERS[2]).chunk_indices[0, 1:, 0] == 0).all()


@pytest.mark.parametrize(
    "command",
    [
        "op --heads 1000000",
        "op --heads 1000000 --kv-heads 1 --head-dim 1000000",
        "op --head-dim 1000000000",
        "op --batch 1000000000",
        "op --lengths 1000000m",
        "op --chunk-size 1000000000 --lengths 2000000000",
        "prefill --batch 1000000000",
        "prefill --lengths 1000000m",
        "train --batch-tokens 1000000m",
        "decode --batch 1000000000",
        "decode --lengths 1000000m",
        "extremes --landmarks 1000000m",
        "extremes --hidden-size 1000000000",
    ],
)
def test_a_benchmark_that_cannot_fit_is_refused_before_it_begins(capsys, tmp_path, command):
    code, out, err = run(capsys, f"{command} --device cpu --out {tmp_path}")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and "GiB, far more than this machine has" in err


@pytest.mark.parametrize(
    "command",
    [
        f"op --heads {HUGE}",
        f"op --lengths {HUGE}",
        f"decode --tokens {HUGE}",
        f"train --intervals {HUGE}",
    ],
)
def test_huge_numbers_are_refused(capsys, tmp_path, command):
    code, out, err = run(capsys, f"{command} --out {tmp_path}")
    assert (code, out) == (2, "")
    told = ("less than or equal", "not in the range", "at most", "numbers from 1")
    assert err.count("\n") == 1 and any(words in err for words in told)
    assert list(tmp_path.iterdir()) == []
