"""`gcattn data` and `gcattn tokenizer` from the command line."""

import json

import pytest
import typer
from typer.testing import CliRunner

from gcattn.cli.data import data_app, tokenizer_app
from gcattn.data import TokenShards, load_tokenizer

app = typer.Typer()
app.add_typer(data_app, name="data")
app.add_typer(tokenizer_app, name="tokenizer")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_prepare_writes_shards_and_says_what_they_hold(jsonl, tmp_path):
    result = run("data", "prepare", jsonl, "--out", tmp_path / "out", "--max-documents", 3)
    assert result.exit_code == 0, result.output
    shards = TokenShards(tmp_path / "out")
    assert shards.num_documents == 3
    assert f"3 documents, {shards.num_tokens} tokens" in result.output


def test_tokenizer_train_then_prepare_with_it(jsonl, tmp_path, texts):
    arguments = ("train", jsonl, "--vocab-size", 300, "--out", tmp_path / "tokenizer")
    result = run("tokenizer", *arguments)
    assert result.exit_code == 0, result.output
    arguments = ("prepare", jsonl, "--tokenizer", tmp_path / "tokenizer", "--out", tmp_path / "out")
    assert run("data", *arguments).exit_code == 0
    shards = TokenShards(tmp_path / "out")
    assert shards.vocab_size == 300
    tokenizer = load_tokenizer(shards.tokenizer_folder)
    assert [tokenizer.decode(shards.document(i)) for i in range(5)] == list(texts)


@pytest.mark.parametrize("command", ["data prepare", "tokenizer train"])
def test_what_is_invalid_is_counted_and_reported_when_it_may_be_left_out(tmp_path, command):
    source = tmp_path / "source.jsonl"
    lines = [json.dumps({"text": f"text {number}"}) for number in range(30)]
    lines[3:3] = ["no JSON"] * 25
    source.write_text("\n".join(lines), encoding="utf-8")
    arguments = [*command.split(), source, "--out", tmp_path / "out"]
    arguments += ["--vocab-size", 262] if command == "tokenizer train" else []
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
