"""`gcattn memory`, `ask` and `chat`: what a user sees, and one line for what goes wrong."""

import io
import shutil
from pathlib import Path

import pytest
import torch

from gcattn.cli import main
from gcattn.data import load_tokenizer
from gcattn.testing import random_config, random_model

TEXT = "The captain went down to the river, and the house was dark.\n" * 9


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Save a model of random weights; what it answers is noise."""
    tokenizer = load_tokenizer()
    config = random_config(5, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    folder = tmp_path_factory.mktemp("model")
    random_model(config).to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_text(TEXT)
    (folder / "b.md").write_text(TEXT[:100])
    (folder / "c.bin").write_bytes(b"\0\1")
    return folder


@pytest.fixture(scope="module")
def built(model, texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("memories") / "texts"
    with pytest.raises(SystemExit) as ended:
        main(["memory", "build", str(texts), "--model", model, "--out", str(out)])
    assert ended.value.code == 0
    return str(out)


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    shown = capsys.readouterr()
    return ended.value.code, shown.out, shown.err


def test_files_are_read_and_what_is_left_out_is_said(model, texts, tmp_path, capsys):
    out = str(tmp_path / "memory")
    code, shown, problems = run(
        capsys, "memory", "build", str(texts), "--model", model, "--out", out
    )
    assert code == 0 and shown.startswith(f"{out}: 3 files, ")
    assert "left out: 1 files" in problems and "c.bin: expected text" in problems


def test_a_memory_says_what_it_holds_and_that_it_is_whole(built, texts, capsys):
    _, shown, _ = run(capsys, "memory", "info", built, "--documents")
    assert "landmarks and keys and values, float32" in shown
    assert f"{texts}/a.txt: " in shown
    assert "c.bin" in shown and "(" in shown.splitlines()[-1]
    for command in (["memory", "verify", built], ["verify", built]):
        code, shown, _ = run(capsys, *command)
        assert code == 0 and shown.endswith("as it was written\n")


def test_files_are_added_joined_and_exported(built, texts, model, tmp_path, capsys):
    (tmp_path / "more.txt").write_text(TEXT)
    joined, alone, more = (str(tmp_path / name) for name in ("joined", "alone", "more"))
    files = str(tmp_path / "more.txt")
    assert run(capsys, "memory", "build", files, "--model", model, "--out", more)[0] == 0
    assert run(capsys, "memory", "merge", built, more, "--out", joined)[1].startswith(
        f"{joined}: 4 files"
    )
    assert run(capsys, "memory", "append", joined, files)[1].startswith(f"{joined}: 5 files")
    assert run(capsys, "memory", "export", joined, "--out", alone)[1].startswith(
        f"{alone}: 5 files"
    )


def test_files_are_deleted_by_path_or_number_and_stay_listed(built, texts, tmp_path, capsys):
    folder = shutil.copytree(built, tmp_path / "memory")
    code, shown, _ = run(capsys, "memory", "delete", str(folder), f"{texts}/a.txt", "2")
    assert code == 0 and shown.startswith(f"{folder}: 2 files deleted, ") and shown.count("\n") == 1
    _, shown, _ = run(capsys, "memory", "delete", str(folder), "2")
    assert shown == f"{folder}: 0 files deleted, 0 tokens; 1 had been deleted before\n"
    _, shown, _ = run(capsys, "memory", "info", str(folder), "--documents")
    assert shown.startswith(f"{folder}: 3 files (2 deleted), ")
    listed = shown.splitlines()[-3:]
    assert listed[0].startswith(f"0 {texts}/a.txt: ") and listed[0].endswith("(deleted)")
    assert listed[1].startswith(f"1 {texts}/b.md: ") and "deleted" not in listed[1]
    code, shown, problem = run(capsys, "memory", "delete", str(folder), "1", "a.txt")
    assert (code, shown) == (2, "") and f"Did you mean {texts}/a.txt?" in problem
    assert problem.count("\n") == 1
    _, shown, _ = run(capsys, "ask", str(folder), "Where is the captain?", "--max-new-tokens", "3")
    places = [line for line in shown.splitlines() if "%" in line]
    assert all(line.split()[1].startswith(f"{texts}/b.md") for line in places)


def test_an_answer_comes_with_its_places(built, capsys):
    question = ["Where is the captain?", "--max-new-tokens", "3", "--memory-tier", "host"]
    code, shown, _ = run(capsys, "ask", built, *question)
    assert code == 0
    places = [line for line in shown.splitlines() if "%" in line]
    assert 1 <= len(places) <= 3
    assert all(Path(line.split()[1].split(":")[0]).name in ("a.txt", "b.md") for line in places)


def test_a_conversation_ends_with_an_empty_line(built, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Who?\nWhere?\n\nnever asked\n"))
    code, shown, notes = run(
        capsys, "chat", "--memory", built, "--max-new-tokens", "2", "--sources", "1"
    )
    assert code == 0
    assert sum("%" in line for line in shown.splitlines()) == 2
    assert notes.count(">") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["memory", "info", "{tmp}"], "holds no memory"),
        (["memory", "append", "{tmp}", "{tmp}"], "gcattn memory build makes one"),
        (["ask", "{tmp}/none", "Who?"], "holds no memory"),
        (["memory", "merge", "{tmp}", "--out", "{tmp}/out"], "holds no memory"),
        (["memory", "export", "{tmp}", "--out", "{tmp}/out"], "holds no memory"),
        (["memory", "delete", "{tmp}", "a.txt"], "holds no memory"),
        (["memory", "build", "{tmp}/no", "--model", "{model}", "--out", "{tmp}/x"], "neither a"),
        (["memory", "build", "{tmp}", "--model", "{tmp}/m", "--out", "{tmp}/x"], "There is no"),
    ],
    ids=lambda x: " ".join(x[:2]) if isinstance(x, list) else "",
)
def test_what_goes_wrong_is_one_line(arguments, message, model, tmp_path, capsys):
    given = [part.format(tmp=tmp_path, model=model) for part in arguments]
    code, shown, problem = run(capsys, *given)
    assert (code, shown) == (2, "")
    assert message in problem and problem.count("\n") == 1


def test_a_changed_byte_is_refused_in_one_line(built, model, tmp_path, capsys):
    folder = tmp_path / "damaged"
    shutil.copytree(built, folder)
    (part,) = (folder / "parts").iterdir()
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    for command in (["memory", "verify", str(folder)], ["ask", str(folder), "Who?"]):
        code, shown, problem = run(capsys, *command)
        assert (code, shown) == (2, "") and problem.count("\n") == 1
        assert "changed" in problem
    (folder / "library.json").write_text("{}")
    code, _, problem = run(capsys, "memory", "verify", str(folder))
    assert code == 2 and "library.json is damaged" in problem
