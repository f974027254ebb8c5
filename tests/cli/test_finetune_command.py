"""Claims about the commands that teach and examine: stories, fine-tuning, exact answers, ROUGE."""

import json

import pytest
import torch

from gcattn import cli
from gcattn.data import load_tokenizer, train_tokenizer
from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.results import read_result


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    train_tokenizer(
        iter(["Question: Answer: Summary: Where did she live? " * 3]), 270, folder / "t"
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    DRTForCausalLM(drt_tiny(vocab_size=270, **sizes)).save_pretrained(folder / "model")
    load_tokenizer(folder / "t").save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


@pytest.mark.slow
def test_stories_are_told_taught_and_asked(run, model, tmp_path):
    told = ["data", "stories", "--documents", 2, "--tokens", 900, "--questions", 2]
    told += ["--tokenizer", model]
    code, printed, error = run(*told, "--out", "train.jsonl")
    assert (code, "2 stories, 4 questions" in printed) == (0, True), error
    assert run(*told, "--out", "test.jsonl", "--split", "validation")[0] == 0
    code, _, error = run(
        *("finetune", "questions", "train.jsonl", "--model", model, "--out", "taught"),
        *("--epochs", 1, "training.batch_size=1"),
    )
    assert (code, "Done: 2 steps, model in taught/model" in error) == (0, True), error
    code, printed, error = run(
        "eval", "questions", "taught/model", "test.jsonl", "--out", "r.json", "--device", "cpu"
    )
    assert (code, "exact answers: 0/4 = 0.0 %" in printed) == (0, True), error
    result = read_result(tmp_path / "r.json")
    assert result["trials"] == 4
    assert len(result["metrics"]["failed_samples"]) == 4
    assert not (tmp_path / "r.cells").exists()


@pytest.mark.slow
def test_summaries_are_taught_scored_and_laid_out(run, model, tmp_path):
    rows = [{"document": "She lived there. " * 30, "summary": "She lived."} for _ in range(2)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, error = run(
        *("finetune", "summarization", "x.jsonl", "--model", model, "--out", "taught"),
        *("--epochs", 1, "--sequence-length", 128, "training.batch_size=2"),
    )
    assert (code, "2 of them cut to 128 tokens" in error) == (0, True), error
    code, printed, error = run(
        *("eval", "summarization", "taught/model", "x.jsonl", "--label", "DRT", "--device", "cpu"),
        *("--data-label", "XSum", "--length", 100, "--max-new-tokens", 6, "--beams", 2),
        *("--out", "s.json"),
    )
    assert (code, "rouge1: " in printed) == (0, True), error
    code, printed, _ = run("eval", "summary-table", "s.json")
    assert printed.startswith("| model | XSum R-1 | XSum R-2 | XSum R-L |")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", "questions", "none.jsonl"], "does not exist; expected a file"),
        (
            ["finetune", "summarization", "none.jsonl", "--columns", "a"],
            "--columns takes DOCUMENT,",
        ),
        (["finetune", "questions", "none.jsonl", "--epochs", "0"], "--epochs must be above 0"),
        (["data", "stories", "--tokens", "1k,2k"], "--tokens takes one length"),
        (["data", "stories", "--split", "test"], "split must be one of"),
    ],
)
def test_bad_input_is_one_line(run, model, arguments, message):
    given = ["--out", "out.jsonl"]
    if arguments[0] == "finetune":
        given = ["--out", "out", "--model", model]
    code, _, error = run(*arguments, *given)
    assert (code, error.count("\n"), message in error) == (2, 1, True), error
