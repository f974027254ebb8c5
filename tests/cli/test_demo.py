"""The demo shows every part of the system, and goes on from where it stopped."""

import sys

import pytest

from gcattn.cli import main


def test_demo_trains_asks_for_needles_and_says_what_comes_next(tmp_path, monkeypatch, capsys):
    module = sys.modules["gcattn.cli.demo"]  # the package holds a function of the same name
    monkeypatch.setattr(module, "QUESTIONS", {256: 3, 1024: 2})
    monkeypatch.setattr(module, "HAYSTACK_DOCUMENTS", 2)
    command = ["demo", "--steps", "12", "--documents", "64", "--out", str(tmp_path / "demo")]
    for _ in range(2):  # the second time, everything is there already
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 0
        shown = capsys.readouterr().err
        for part in ("256 tokens: ", "of 3 answers right", "1,024 tokens: ", "of 2 answers right"):
            assert part in shown
        for part in ("hidden at token", "asked: ", "it was: ", "generated: "):
            assert part in shown
        assert "gcattn train examples/books_cpu.yaml" in shown
