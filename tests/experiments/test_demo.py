"""The demo shows every part of the system, and goes on from where it stopped."""

import re
from pathlib import Path

import pytest

from experiments import demo, demo_library
from gcattn.cli.program import run_command


@pytest.mark.slow
def test_demo_trains_asks_for_needles_and_says_what_comes_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "QUESTIONS", {256: 3, 1024: 2})
    monkeypatch.setattr(demo, "HAYSTACK_DOCUMENTS", 2)
    command = ["--steps", "12", "--documents", "64", "--out", str(tmp_path / "demo")]
    for _ in range(2):  # the second time, everything is there already
        with pytest.raises(SystemExit) as ended:
            run_command(demo.command, "experiments.demo", command)
        assert ended.value.code == 0
        shown = capsys.readouterr().err
        for part in ("256 tokens: ", "of 3 answers right", "1,024 tokens: ", "of 2 answers right"):
            assert part in shown
        for part in ("hidden at token", "asked: ", "it was: ", "generated: "):
            assert part in shown
        assert "gcattn train examples/books_cpu.yaml" in shown


@pytest.mark.slow
def test_demo_asks_a_released_model(tmp_path, monkeypatch, capsys):
    checkpoint = Path(__file__).parents[2] / "checkpoints" / "gcattn-39m"
    if not checkpoint.exists():
        pytest.skip("the source distribution holds no checkpoint")
    monkeypatch.setattr(demo, "RELEASED_QUESTIONS", {1024: 2})
    monkeypatch.setattr(demo_library, "FILES", 10)
    monkeypatch.setattr(demo_library, "ASKED", 2)
    with pytest.raises(SystemExit) as ended:
        run_command(
            demo.command,
            "experiments.demo",
            ["--model", str(checkpoint), "--out", str(tmp_path / "demo")],
        )
    assert ended.value.code == 0
    shown = capsys.readouterr().err
    # it is a small model, and these are words that its training never used
    assert re.search(r"1,024 tokens: [12] of 2 answers right", shown) and "generated: " in shown
    assert re.search(r"\d of 2 answers right, \d with their file and line", shown)
    assert shown.count("answered: ") == 2
    assert not (tmp_path / "demo").exists()


def test_demo_says_at_once_that_there_is_no_such_model(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(demo.command, "experiments.demo", ["--model", str(tmp_path / "nothing")])
    assert ended.value.code == 2
    assert "nothing" in capsys.readouterr().err
