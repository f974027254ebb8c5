"""Every block of README and docs: Python runs, commands are understood, configurations load."""

import functools
import importlib
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# what a page reads, made smaller so that every page runs in seconds
SHORTER = {"[:150_000]": "[:2_000]", "[:30_000]": "[:1_000]", "[30_000:]": "[1_000:]"}
SHORTER |= {'build_library("README.md"': 'build_library("examples/tiny_synthetic.yaml"'}
SHORTER |= {"training.steps=50": "training.steps=1", "(1, 5_000)": "(1, 1_100)", "* 500": "* 50"}
# programs that are not ours, or that only a GPU, a network or another machine can run
OTHERS = {"git", "cd", "pip", "lm_eval", "make", "curl", "export"}


def blocks(page, *languages):
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", text, re.M | re.S)
    return [body for _, language, body in found if language in languages]


def name(page):
    return str(page.relative_to(ROOT))


def pages(*languages):
    return [pytest.param(page, id=name(page)) for page in PAGES if blocks(page, *languages)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Return a folder with what a clone holds and what earlier commands of the docs make."""
    from gcattn.data.synthetic_shards import prepare_synthetic_shards

    folder = tmp_path_factory.mktemp("clone")
    for part in ("checkpoints", "examples", "results"):
        (folder / part).symlink_to(ROOT / part)
    for split in ("train", "validation"):
        for corpus in ("books", "synthetic"):
            out = folder / "data" / corpus / split
            prepare_synthetic_shards(out, 24, 512, 0, split=split)
    return folder


@pytest.mark.parametrize("page", pages("python"))
def test_python_blocks_run(page, clone, monkeypatch):
    # a training run takes half a minute, and is run by the nightly test below
    run = SimpleNamespace(model_folder="runs/model")
    monkeypatch.setattr("gcattn.train.run.run_training", lambda config: run)
    run_python(page, clone, monkeypatch, SHORTER)
    if page == ROOT / "README.md":  # who tries it again finds the memory that it made
        run_python(page, clone, monkeypatch, SHORTER, first=1)


@pytest.mark.slow
def test_a_model_is_trained_from_python(clone, monkeypatch):
    run_python(ROOT / "docs" / "training.md", clone, monkeypatch, SHORTER)
    assert (clone / "runs" / "tiny_synthetic" / "model" / "config.json").is_file()


@pytest.mark.slow
def test_the_first_answers_are_right_as_written(clone, monkeypatch, capsys):
    run_python(ROOT / "README.md", clone, monkeypatch, {}, first=1)
    printed = capsys.readouterr().out.splitlines()
    (shown,) = blocks(ROOT / "README.md", "text")
    # other versions of Python have other lines
    no_lines = [re.sub(r":\d+\)$", "", line) for line in (*printed, *shown.splitlines())]
    assert len(printed) == 3 and no_lines[:3] == no_lines[3:]


def run_python(page, clone, monkeypatch, shorter, first=None):
    monkeypatch.chdir(clone)
    names = {"__name__": "page"}
    for number, block in enumerate(blocks(page, "python")[:first]):
        for long, short in shorter.items():
            block = block.replace(long, short)
        exec(compile(block, f"{name(page)}, Python block {number}", "exec"), names)


@pytest.mark.parametrize("page", pages("sh", "", "console"))
def test_commands_are_understood(page):
    for block in blocks(page, "sh", "", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            check_command(line)


def check_command(line):
    words = shlex.split(line, comments=True)
    if words[:1] == ["torchrun"]:
        words = words[words.index("-m") :]
        assert words[:2] == ["-m", "gcattn.cli"], line
        words = ["gcattn", *words[2:]]
    if not words or words[0] in OTHERS:
        return
    if words[0] == "python":
        check_program(line, words[1:])
    elif words[0] == "gcattn":
        understand(our_command(), line, words[1:])


@functools.cache
def our_command():
    from gcattn.cli import app

    return typer.main.get_command(app)


def check_program(line, words):
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file(), line
        return
    module = importlib.import_module(words[1])
    if hasattr(module, "command"):
        one = typer.Typer()
        one.command()(module.command)
        understand(typer.main.get_command(one), line, words[2:])


def understand(command, line, words):
    """Read every option and run nothing."""
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        first, *words = words
        assert first in command.commands, line
        command = command.commands[first]
    if words == ["--help"] or (not words and hasattr(command, "commands")):
        return
    command.make_context(line, list(words))


@pytest.mark.parametrize("page", pages("yaml"))
def test_configurations_load(page, clone, tmp_path, monkeypatch):
    from gcattn.train import load_config

    monkeypatch.chdir(clone)
    for block in blocks(page, "yaml"):
        if not {"model", "data", "training"} <= yaml.safe_load(block).keys():
            continue
        file = tmp_path / "run.yaml"
        file.write_text(block, encoding="utf-8")
        load_config(file, [])


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in PAGES])
def test_paths_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:examples|checkpoints|tests|tools|results|docs)/[\w./-]+)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_both_front_pages_begin_with_numbers_of_the_tables():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (bullets,) = re.findall(r"^- \*\*Far .*?\n\n", text, re.M | re.S)
    assert bullets in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    claimed = re.findall(r"\d[\d,.]* (?:ms|MiB)", bullets)
    assert len(claimed) == 4
    tables = "".join(re.findall(r"^\|.*\n", text, re.M))
    assert [number for number in claimed if number not in tables] == []


def test_the_errors_of_the_faq_are_those_of_the_code():
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    # a message is often written as several literals, one below the other
    source = re.sub(r"[\"']\s*\n\s*(\#[^\n]*\n\s*)?f?[\"']", "", source)
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.+?)` \|", page, re.M)
    assert len(messages) > 10
    parts = [part for message in messages for part in message.split("…") if len(part) > 6]
    assert [part for part in parts if part.strip() not in source] == []


def test_the_page_of_the_benchmarks_names_the_files_that_they_write():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)\.json` \|", page, re.M)
    written = {
        file.stem: re.findall(r'ResultFile\("(\w+)"', file.read_text(encoding="utf-8"))
        for file in (ROOT / "benchmarks").glob("*.py")
    }
    assert {(name, *files) for name, files in written.items() if files} == set(rows)


def test_the_reference_has_every_public_name():
    import gcattn
    from gcattn.models import presets

    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: .*\.(\w+)$", page, re.M)) | set(vars(presets)) | {"__version__"}
    assert sorted(set(gcattn.__all__) - shown) == []


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_perplexity_is_asked_at_a_length_that_the_documents_have(page):
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", "")
    (written,) = set(re.findall(r"gcattn data synthetic --document-tokens (\d+)", text))
    (asked,) = re.findall(r"gcattn eval perplexity runs/tiny_synthetic/\S+ .*--lengths (\d+)", text)
    # the end-of-text token of a document is not predicted text
    assert int(asked) < int(written)
