"""The demo shows every part of the system, and goes on from where it stopped."""

import re
import sysconfig
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
    monkeypatch.setattr(demo_library, "PEOPLE", 2)
    monkeypatch.setattr(demo_library, "NOTES", demo_library.NOTES[:2])
    monkeypatch.setattr(demo_library, "MOST_BYTES", 2600)
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
    for kind in ("facts about people", "notes of programmers"):
        assert re.search(rf"{kind}: \d of 2 answers right, \d with their file and line", shown)
    assert len(re.findall(r"\? .* \(\w+\.py:\d+; (?:right|wrong, it is .+)\)", shown)) == 4
    assert not (tmp_path / "demo").exists()


def test_demo_says_at_once_that_there_is_no_such_model(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(demo.command, "experiments.demo", ["--model", str(tmp_path / "nothing")])
    assert ended.value.code == 2
    assert "nothing" in capsys.readouterr().err


def test_every_comment_of_the_demo_is_where_it_is_said_to_be(tmp_path):
    notes = (*demo_library.draw_facts(), *demo_library.NOTES)
    folder = tmp_path / "files"
    places = demo_library.write_files(folder, Path(sysconfig.get_path("stdlib")), notes)
    assert len(set(places.values())) == len(notes) == 20
    for note, place in places.items():
        name, line = place.split(":")
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        assert lines[int(line) - 1].strip() == f"# {note.comment}"
        assert note.answer in note.comment


def test_a_library_without_modules_is_no_place_for_comments(tmp_path):
    with pytest.raises(ValueError, match="must have at least 10 modules"):
        demo_library.write_files(tmp_path / "files", tmp_path, demo_library.NOTES)
