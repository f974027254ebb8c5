"""Claims about `gcattn eval ruler`, on a small saved model."""

import pytest
import torch

from gcattn import cli
from gcattn.data import load_tokenizer
from gcattn.evals import needle_haystack
from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.results import read_result


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved") / "drt"
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "head_dim": 8}
    DRTForCausalLM(drt_tiny(vocab_size=16_384, **sizes)).save_pretrained(folder)
    load_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(needle_haystack, "_NUM_DOCUMENTS", 2)
    monkeypatch.setattr(needle_haystack, "_DOCUMENT_TOKENS", 600)

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["eval", "ruler", *(str(argument) for argument in arguments)])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


def test_scores_intervals_and_means(run, model, tmp_path):
    out = tmp_path / "ruler.json"
    options = ["--tasks", "qa_1,vt", "--lengths", "800", "--samples", 2, "--device", "cpu"]
    code, printed, error = run(model, *options, "--batch-size", 2, "--out", out)
    assert code == 0, error
    assert "mean of 2 tasks at 800" in printed
    result = read_result(out)
    assert [cell["task"] for cell in result["metrics"]["cells"]] == ["qa_1", "vt"]
    assert all(cell["trials"] == 2 for cell in result["metrics"]["cells"])
    assert result["config"]["num_cells"] == 2
    assert {file.name for file in tmp_path.iterdir()} == {"ruler.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "needle"], "task must be one of niah_single_1"),
        (["--tasks", "vt,vt"], "Tasks must differ"),
        (["--lengths", "200"], "needs a length of at least"),
        (["--out", "ruler.txt"], "--out must end in .json"),
        (["--squad", "missing.json"], "No such file"),
    ],
)
def test_bad_input_is_one_line(run, model, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(model, *options)
    assert (code, error.count("\n"), message in error) == (2, 1, True), error
