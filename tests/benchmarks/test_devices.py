"""Claims about `python -m benchmarks.devices`: real runs of training are timed, failures named."""

import pytest

from benchmarks import devices
from gcattn.cli.program import run_command
from gcattn.results import read_result
from results.collect import lines_of

SMALL = "--preset drt_tiny --tokens 60 --batch 1 --steps 20"


def run(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        run_command(devices.command, "benchmarks.devices", arguments.split())
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


@pytest.mark.slow
def test_two_devices_train_beside_one_and_what_cannot_run_has_a_reason(capsys, tmp_path):
    code, out, err = run(capsys, f"{SMALL} --device cpu --out {tmp_path}")
    assert code == 0, err
    assert "times one" in out
    result = read_result(tmp_path / "devices.json")
    one, ddp, fsdp = (result["metrics"][way] for way in devices.WAYS)
    assert (one["devices"], ddp["devices"]) == (1, 2)
    assert min(one["tokens_per_second"], one["first_step_s"]) > 0
    times_one = ddp["tokens_per_second"] / one["tokens_per_second"]
    assert ddp["times_one"] == pytest.approx(times_one)
    # the loss of chance is 9.7; a few rows are soon known by heart
    assert max(one["last_loss"], ddp["last_loss"]) < 9.5
    assert "training.fsdp needs CUDA GPUs" in fsdp["unavailable"]
    lines = {line["method"]: line for line in lines_of(result, "four GPUs")}
    assert lines["ddp"]["score"] == ddp["tokens_per_second"]
    assert lines["fsdp"]["unavailable"] == fsdp["unavailable"]


@pytest.mark.slow
def test_a_way_that_takes_too_long_is_ended(capsys, tmp_path):
    command = f"{SMALL} --ways one --seconds 1 --device cpu --out {tmp_path}"
    assert run(capsys, command)[0] == 0
    metrics = read_result(tmp_path / "devices.json")["metrics"]
    assert metrics["one"]["unavailable"] == "took above 1 s"


def test_a_way_that_nobody_knows_is_refused(capsys, tmp_path):
    code, _, err = run(capsys, f"--ways one,dpp --device cpu --out {tmp_path}")
    assert code == 2
    assert "--ways knows one, ddp, fsdp; got dpp." in err
