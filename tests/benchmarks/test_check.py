"""The checks for a GPU find what is wrong, and say in one line that they need one."""

import pytest
import torch

from benchmarks import check, check_operators, check_tokens, compile
from gcattn.cli.program import run_command


def run(capsys, module, *arguments):
    with pytest.raises(SystemExit) as stop:
        run_command(module.command, module.__name__, list(arguments))
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "message"), [(("soup",), "Parts are ops, decode; got soup."), ((), "need a GPU")]
)
def test_what_cannot_be_checked_is_one_line(capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = run(capsys, check, *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and message in err


@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_a_kernel_that_is_wrong_is_found(monkeypatch, factor):
    monkeypatch.setattr(check_operators, "DEVICE", "cpu")
    monkeypatch.setattr(check_operators, "POISON", 1)
    exact = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def kernel(dtype, impl):
        return [(exact * (factor if impl == "triton" else 1)).to(dtype)]

    if factor == 1:
        assert "relative errors" in check_operators._compare(kernel)
    else:
        with pytest.raises(AssertionError, match=r"error .* is above"):
            check_operators._compare(kernel)


@pytest.mark.slow
def test_tokens_in_fixed_shapes_are_held_to_planned_ones(monkeypatch):
    monkeypatch.setattr(check_tokens, "DEVICE", "cpu")
    monkeypatch.setattr(check_tokens, "DECODED", 85)
    with torch.no_grad():
        difference, captured = check_tokens._difference(0, "host")
    assert difference < check_tokens.TOLERANCE and not captured


def test_a_check_that_fails_is_named_and_ends_with_one(capsys, monkeypatch):
    def wrong():
        raise AssertionError("off by one")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(check, "CHECKS", {"ops": {"good": lambda: "fine", "bad": wrong}})
    code, _, err = run(capsys, check)
    assert code == 1
    assert "good: fine" in err and "bad: WRONG: off by one" in err and "wrong: bad" in err


@pytest.mark.slow
def test_a_way_to_compile_is_measured(tmp_path):
    row = compile.measure("not compiled", "drt_tiny", (1, 60), torch.device("cpu"), 0)
    assert row["first_step_seconds"] > 0 and row["tokens_per_second"] > 0
    assert (row["graphs"], row["peak_mib"]) == (0, None)


def test_an_unknown_way_is_refused(capsys, tmp_path):
    code, _, err = run(capsys, compile, "--ways", "by magic", "--out", str(tmp_path))
    assert code == 2 and "got by magic" in err
