"""The demo shows every part of the system, and goes on from where it stopped."""

import sys

import pytest

from gcattn.cli import main


def test_demo_trains_measures_recalls_and_says_what_comes_next(tmp_path, monkeypatch, capsys):
    module = sys.modules["gcattn.cli.demo"]  # the package holds a function of the same name
    monkeypatch.setattr(module, "LENGTHS", (526, 1024))
    monkeypatch.setattr(module, "VALIDATION_DOCUMENTS", 2)
    command = ["demo", "--steps", "12", "--documents", "64", "--out", str(tmp_path / "demo")]
    for _ in range(2):  # the second time, everything is there already
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 0
        shown = capsys.readouterr().err
        for part in ("526 tokens: ", "1,024 tokens: ", "it was", "generated", "words right"):
            assert part in shown
        assert "gcattn train examples/books_cpu.yaml" in shown
    assert (tmp_path / "demo" / "loss_by_position.png").stat().st_size > 10_000
