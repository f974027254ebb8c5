"""Claims about numbers that can't be meant and homes that are not there: one line, at once."""

import re

import pytest

from gcattn import cli
from gcattn.cli.limits import MOST, MOST_SEED

HUGE = "1" + 30 * "0"


def refuse(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main(command.split())
    captured = capsys.readouterr()
    assert (stop.value.code, captured.out) == (2, "")
    assert captured.err.startswith("gcattn: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    "command",
    [
        f"data prepare x --out y --max-documents {HUGE}",
        f"data prepare x --out y --shard-tokens {HUGE}",
        f"data synthetic --out y --documents {HUGE}",
        f"data synthetic --out y --document-tokens {HUGE}",
        f"data tokenizer x --out y --vocab-size {HUGE}",
        f"eval perplexity m --data x --segment-length {HUGE}",
        f"eval perplexity m --data x --max-documents {HUGE}",
        f"eval perplexity m --data x --lengths {HUGE}",
        f"eval perplexity m --data x --lengths {'9' * 5000}k",
        f"eval needle m --samples {HUGE}",
        f"eval needle m --depths {HUGE}",
        f"eval needle m --batch-size {HUGE}",
        f"eval needle m --lengths {HUGE}",
        f"generate m --prompt a --max-new-tokens {HUGE}",
        f"generate m --prompt a --segment-length {HUGE}",
        f"generate m --prompt a --seed {HUGE}",
    ],
    ids=lambda command: " ".join(command.replace(HUGE, "huge").split()[:6]),
)
def test_huge_numbers_are_refused(capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    error = refuse(capsys, command)
    told = ("less than or equal", "not in the range", "at most", "numbers from 1")
    assert any(words in error for words in told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["data synthetic", "eval needle", "generate", "memory build"])
def test_help_shows_bounds_that_can_be_meant(capsys, command):
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert "x>=" in shown or "<=x" in shown
    assert not {str(MOST), str(MOST_SEED)} & set(re.findall(r"\d+", shown))


@pytest.mark.parametrize("error", [MemoryError("7 PiB"), RuntimeError("can't allocate memory")])
def test_running_out_of_memory_is_one_line(capsys, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert "Out of memory, choose smaller sizes" in refuse(capsys, "x")


def test_home_is_what_a_tilde_means(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("the house by the river")
    for command in ("data prepare ~/a.txt --out=~/shards", "data verify ~/shards"):
        with pytest.raises(SystemExit) as stop:
            cli.main(command.split())
        assert stop.value.code == 0
        assert f"{tmp_path}/shards: 1 documents" in capsys.readouterr().out
    assert "gcattn train saves" in refuse(capsys, "generate ~/shards --prompt a")
    assert f"{tmp_path}/no is not a folder" in refuse(capsys, "eval perplexity ~/x --data ~/no")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "shards"]


@pytest.mark.parametrize(
    "command",
    [
        "data prepare ~nobody-here/a.txt --out x",
        "data prepare a.txt --out ~nobody-here/x",
        "eval perplexity ~nobody-here/m --data x",
    ],
)
def test_a_home_that_is_not_there_is_one_line(capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert "there is no such user; write ./~nobody-here" in refuse(capsys, command)
    assert list(tmp_path.iterdir()) == []
