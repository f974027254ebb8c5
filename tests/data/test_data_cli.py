"""`gcattn data` from the command line."""

import json

import pytest
import typer
from typer.testing import CliRunner

from gcattn.cli.data import data_app
from gcattn.data import TokenShards, load_tokenizer
from gcattn.storage.full_disk import DiskFullError

app = typer.Typer()
app.add_typer(data_app, name="data")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_prepare_writes_shards_and_says_what_they_hold(jsonl, tmp_path):
    result = run("data", "prepare", jsonl, "--out", tmp_path / "out", "--max-documents", 3)
    assert result.exit_code == 0, result.output
    shards = TokenShards(tmp_path / "out")
    assert shards.num_documents == 3
    assert f"3 documents, {shards.num_tokens} tokens" in result.output


def test_a_tokenizer_is_made_then_prepare_with_it(jsonl, tmp_path, texts):
    arguments = ("tokenizer", jsonl, "--vocab-size", 300, "--out", tmp_path / "tokenizer")
    result = run("data", *arguments)
    assert result.exit_code == 0, result.output
    arguments = ("prepare", jsonl, "--tokenizer", tmp_path / "tokenizer", "--out", tmp_path / "out")
    assert run("data", *arguments).exit_code == 0
    shards = TokenShards(tmp_path / "out")
    assert shards.vocab_size == 300
    tokenizer = load_tokenizer(shards.tokenizer_folder)
    assert [tokenizer.decode(shards.document(i)) for i in range(5)] == list(texts)


@pytest.mark.parametrize("command", ["data prepare", "data tokenizer"])
def test_what_is_invalid_is_counted_and_reported_when_it_may_be_left_out(tmp_path, command):
    source = tmp_path / "source.jsonl"
    lines = [json.dumps({"text": f"text {number}"}) for number in range(30)]
    lines[3:3] = ["no JSON"] * 25
    source.write_text("\n".join(lines), encoding="utf-8")
    arguments = [*command.split(), source, "--out", tmp_path / "out"]
    arguments += ["--vocab-size", 260] if command == "data tokenizer" else []
    assert "source.jsonl, line 4: not valid JSON" in str(run(*arguments).exception)
    assert not (tmp_path / "out").exists()
    result = run(*arguments, "--skip-invalid")
    assert result.exit_code == 0, result.output
    assert "left out as invalid: 25\n" in result.stderr
    assert "source.jsonl, line 4: not valid JSON" in result.stderr
    assert "and 5 more" in result.stderr


def test_synthetic_writes_a_corpus_with_a_recall_mask(tmp_path):
    arguments = ("--documents", 2, "--document-tokens", 600, "--recall-distance", 100, 300)
    result = run("data", "synthetic", "--out", tmp_path / "out", *arguments, "--seed", 3)
    assert result.exit_code == 0, result.output
    shards = TokenShards(tmp_path / "out")
    assert shards.num_tokens == 1200
    assert shards.recall_mask.any()


def test_verify_reads_every_byte(jsonl, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    run("data", "prepare", jsonl, "--out", folder)
    assert "as they were written" in run("data", "verify", folder).output
    shard = folder / "shard_00000.bin"
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    assert "shard_00000.bin has changed" in str(run("data", "verify", folder).exception)
    (folder / "manifest.json").unlink()
    result = run("data", "verify", folder)
    assert result.exit_code == 0
    assert "written without checksums, so a changed token may go unnoticed" in result.output
    content[11] = 255
    shard.write_bytes(content)
    assert "token 5 has the id" in str(run("data", "verify", folder).exception)


@pytest.mark.parametrize("command", ["prepare", "synthetic"])
@pytest.mark.slow
def test_a_full_disk_is_said_and_nothing_is_left_on_it(tmp_path, small_disk, command):
    disk = small_disk(2048)
    (tmp_path / "a.txt").write_text("the house by the river and the wind " * 100_000)
    arguments = {
        "prepare": [tmp_path / "a.txt"],
        "synthetic": ["--documents", 300, "--document-tokens", 4096],
    }[command]
    result = run("data", command, *arguments, "--out", disk / "out")
    assert isinstance(result.exception, DiskFullError)
    assert str(result.exception).startswith(f"The disk is full: {disk}/out")
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "nowhere.parquet"], "does not exist"),
        (["prepare", "SOURCE", "--text-column", "body"], "its columns are: text"),
        (["prepare", "SOURCE", "--tokenizer", "./nowhere"], "No tokenizer at"),
        (["synthetic", "--document-tokens", "5"], "at least 512"),
        (["synthetic", "--split", "test"], "split must be one of"),
    ],
)
def test_wrong_use_raises_what_main_turns_into_one_line(tmp_path, arguments, message):
    source = tmp_path / "source.jsonl"
    source.write_text(json.dumps({"text": "a"}))
    arguments = [str(source) if word == "SOURCE" else word for word in arguments]
    result = run("data", *arguments, "--out", tmp_path / "out")
    assert isinstance(result.exception, (ValueError, OSError))
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()
