"""The studies in results/: every score has its origin, every table its file, every command runs."""

import importlib
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest
import typer

from gcattn.cli import app
from gcattn.results import read_result
from results.collect import FOLDER, lines_of, read_lines
from results.tables.overview import STUDIES, TABLES
from results.tables.study import scores

FILES = sorted(FOLDER.glob("*.jsonl"))
COMMANDS = sorted({line["command"] for file in FILES for line in read_lines(file)})
ORIGIN = {"method", "seed", "task", "command", "trials", "hardware", "torch", "date"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_score_says_what_it_is_and_where_it_comes_from(file):
    lines = read_lines(file)
    for line in lines:
        assert set(line) >= ORIGIN
        assert ("score" in line) != ("unavailable" in line)
    assert len({str(line) for line in lines}) == len(lines)


def test_every_study_has_a_question_and_a_table():
    assert {file.stem for file in FILES} == set(STUDIES)
    assert {study for study, _ in TABLES.values() if study} == set(STUDIES)


def test_tables_are_those_of_the_studies(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tables", "--check"])
    assert importlib.import_module("results.tables.__main__").main() == 0, capsys.readouterr().out


@cache
def program(name):
    """Return the command line of `gcattn`, or of a module that runs by itself."""
    if name == "gcattn":
        return typer.main.get_command(app)
    one = typer.Typer()
    one.command()(importlib.import_module(name).command)
    return typer.main.get_command(one)


def test_every_command_is_understood():
    for text in COMMANDS:
        name, *arguments = shlex.split(text)
        if name == "python":
            _, name, *arguments = arguments
        command = program(name)
        while hasattr(command, "commands"):
            name, *arguments = arguments
            command = command.commands[name]
        # reads every option and runs nothing
        command.make_context(text, list(arguments))


def test_no_command_names_a_place_outside_of_a_clone():
    assert [command for command in COMMANDS if re.search(r"[ =][/~]", command)] == []


@pytest.mark.parametrize("file", sorted((FOLDER / "full").glob("*.json")), ids=lambda f: f.stem)
def test_a_whole_record_holds_the_numbers_of_its_study(file):
    result = read_result(file)
    assert file.stem.startswith(result["name"])  # several sizes have one name
    study = next(name for name in STUDIES if file.stem.startswith(name))
    known = [(line["method"], line["task"], line.get("score")) for line in scores(study)]
    lines = lines_of(result, "gcattn-39m" if study == "release" else "gcattn-12m")
    assert lines
    assert [x for x in lines if (x["method"], x["task"], x.get("score")) not in known] == []


def test_lines_of_a_fresh_result_have_the_fields_of_the_study(tmp_path):
    from gcattn.results import write_result

    row = {"task": "single", "length": 64, "accuracy": 0.5, "exact": 1, "trials": 2}
    row |= {"teacher_forced_first_token": 1.0, "failures": {}, "seconds": 0.1}
    config = {"haystack": "data/x", "parameters": 3}
    command = "gcattn eval needle m --out a.json --lengths 64"
    file = write_result(
        "needle", config, {"by_length": [row]}, folder=tmp_path, seed=4, trials=2, command=command
    )
    (line,) = lines_of(read_result(file), "mine")
    assert (line["method"], line["seed"], line["score"], line["right"]) == ("mine", 4, 0.5, 1)
    assert line["command"] == "gcattn eval needle m --lengths 64"
    assert set(line) == set(scores("needle_12m")[0])


def test_the_collecting_command_adds_to_a_study(tmp_path, monkeypatch, capsys):
    from results import collect

    record = FOLDER / "full" / "needle_12m_1m.json"
    monkeypatch.setattr(collect, "FOLDER", tmp_path)
    for count in (1, 2):
        monkeypatch.setattr(sys, "argv", ["collect", "new", "mine", str(record), "--seed", "7"])
        collect.main()
        lines = read_lines(Path(tmp_path) / "new.jsonl")
        assert [line["seed"] for line in lines] == [7] * 3 * count
    assert "6 scores" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--replace"])
    collect.main()
    assert len(read_lines(tmp_path / "new.jsonl")) == 3
