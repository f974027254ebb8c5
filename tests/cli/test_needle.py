"""Claims about `gcattn eval needle`, on a small saved model."""

import json
import shutil

import pytest
import torch

from gcattn import cli
from gcattn.data import TokenShardWriter, load_tokenizer
from gcattn.data.needle_tasks import TASK_NAMES
from gcattn.evals import needle_cells, needle_haystack
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


@pytest.fixture(scope="module")
def haystack(tmp_path_factory):
    tokenizer = load_tokenizer()
    folder = tmp_path_factory.mktemp("corpus") / "shards"
    with TokenShardWriter(folder, tokenizer, "test") as writer:
        text = "the house by the river " * 90
        writer.append(tokenizer(text, return_tensors="np").input_ids[0], len(text))
    return folder


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["eval", "needle", *(str(argument) for argument in arguments)])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


def test_scores_failures_and_a_picture(run, model, haystack, tmp_path):
    out = tmp_path / "results" / "small.json"
    options = ["--haystack", haystack, "--tasks", "single,multi-query:2", "--lengths", "256,512"]
    options += ["--depths", 2, "--samples", 1, "--segment-length", 100, "--out", out]
    options += ["--batch-size", 2, "--set", "retrieval_top_k=2", "--set", "retrieval_noise=none"]
    code, printed, _ = run(model, *options, "--memory-tier", "host", "--device", "cpu")
    assert code == 0
    for words in ("teacher-forced first token", "wrong chunk", "0/2 = 0.0 %", "multi-query:2"):
        assert words in printed
    result = read_result(out)
    assert result["config"]["tasks"] == ["single", "multi-query:2"]
    assert result["config"]["changes"] == {"retrieval_top_k": 2, "retrieval_noise": "none"}
    assert result["config"]["memory_tier"] == "host"
    assert result["config"]["depths"] == [0.0, 1.0]
    metrics = result["metrics"]
    assert [(entry["task"], entry["length"]) for entry in metrics["by_length"]] == [
        ("single", 256),
        ("multi-query:2", 256),
        ("single", 512),
        ("multi-query:2", 512),
    ]
    for entry in metrics["by_length"]:
        assert entry["trials"] == 2 == entry["exact"] + sum(entry["failures"].values())
        assert 0 <= entry["teacher_forced_first_token"] <= 1
        assert entry["host_bytes"] > 0
        assert 0 < entry["prefill_seconds"] < entry["seconds"]
    assert len(metrics["cells"]) == 8
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    # what was kept for an interruption is gone
    assert {file.name for file in out.parent.iterdir()} == {"small.json", "small.png"}


@pytest.fixture
def interrupt_call(monkeypatch):
    """Return a function that has one of the coming batches interrupted, and lists them."""

    def interrupt(number):
        real, calls = needle_cells.answer_samples, []

        def interrupted(*arguments, **keywords):
            calls.append(1)
            if len(calls) == number:
                raise KeyboardInterrupt
            return real(*arguments, **keywords)

        monkeypatch.setattr(needle_cells, "answer_samples", interrupted)
        return calls

    return interrupt


@pytest.mark.slow
def test_the_same_command_goes_on(run, model, haystack, tmp_path, interrupt_call):
    out = tmp_path / "needle.json"
    options = [model, "--haystack", haystack, "--lengths", "256", "--depths", 3, "--samples", 1]
    options += ["--out", out, "--device", "cpu"]
    calls = interrupt_call(3)
    assert run(*options)[0] == 130
    unfinished = read_result(out)
    assert (len(unfinished["metrics"]["cells"]), unfinished["config"]["num_cells"]) == (2, 3)
    code, _, error = run(*options, "--seed", 1)
    assert (code, "unfinished evaluation with other settings" in error) == (2, True)
    assert run(*options)[0] == 0
    assert len(calls) == 3 + 1
    assert len(read_result(out)["metrics"]["cells"]) == 3


def test_a_refused_command_does_not_block_the_corrected_one(run, model, haystack, tmp_path):
    out = tmp_path / "needle.json"
    options = [model, "--haystack", haystack, "--depths", 1, "--samples", 1, "--out", out]
    code, _, error = run(*options, "--lengths", "16", "--seed", 1)
    assert (code, "needs a length of at least" in error) == (2, True)
    assert list(tmp_path.iterdir()) == []
    # nor does what an earlier version left behind
    (tmp_path / "needle.cells").mkdir()
    (tmp_path / "needle.cells/settings").write_text("of another seed")
    assert run(*options, "--lengths", "256", "--device", "cpu")[0] == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["needle.json", "needle.png"]


@pytest.mark.slow
def test_a_whole_result_stays_until_there_is_another(
    run, model, haystack, tmp_path, interrupt_call
):
    out = tmp_path / "needle.json"
    options = [model, "--haystack", haystack, "--lengths", "256", "--depths", 2, "--samples", 1]
    options += ["--out", out, "--device", "cpu"]
    assert run(*options)[0] == 0
    whole = out.read_bytes()
    interrupt_call(2)
    assert run(*options, "--seed", 1)[0] == 130
    assert out.read_bytes() == whole
    assert run(*options, "--seed", 1)[0] == 0
    assert read_result(out)["seed"] == 1


def test_a_file_that_is_no_result_is_not_replaced(run, model, haystack, tmp_path):
    out = tmp_path / "notes.json"
    out.write_text("{}")
    code, _, error = run(model, "--haystack", haystack, "--lengths", "256", "--out", out)
    assert (code, "is not a result file" in error) == (2, True)
    assert out.read_text() == "{}"


@pytest.mark.slow
def test_without_a_folder_the_text_is_made_up(run, model, tmp_path, monkeypatch):
    monkeypatch.setattr(needle_haystack, "_NUM_DOCUMENTS", 2)
    monkeypatch.setattr(needle_haystack, "_DOCUMENT_TOKENS", 600)
    out = tmp_path / "needle.json"
    options = ["--lengths", "256", "--depths", 1, "--samples", 1, "--out", out, "--tasks", "all"]
    code, _, _ = run(model, *options, "--lengths", "1k", "--device", "cpu")
    assert code == 0
    result = read_result(out)
    assert result["config"]["haystack"] == "synthetic text"
    assert result["config"]["haystack_tokens"] == 1200
    assert len(result["metrics"]["by_length"]) == len(TASK_NAMES)


def test_a_haystack_of_another_tokenizer_is_refused(run, model, haystack, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(model, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content), encoding="utf-8")
    code, _, error = run(folder, "--haystack", haystack, "--lengths", "256")
    assert code == 2
    assert "were made with another tokenizer" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "missing"}, "There is no folder missing"),
        ({"--haystack": "missing"}, "is not a folder of token shards"),
        ({"--tasks": "needle"}, "task must be one of single"),
        ({"--tasks": "single,single"}, "Tasks must differ"),
        ({"--lengths": "64", "--tasks": "three-hop"}, "needs a length of at least"),
        ({"--depths": "0"}, "--depths"),
        ({"--set": "retrieval_top_k"}, "--set takes FIELD=VALUE, such as retrieval_top_k=4, got"),
        ({"--out": "results.txt"}, "--out must end in .json"),
    ],
    ids=lambda value: (
        " ".join(*value.items()) if isinstance(value, dict) and len(value) == 1 else ""
    ),
)
def test_bad_input_is_one_line(run, monkeypatch, model, haystack, tmp_path, change, message):
    monkeypatch.chdir(tmp_path)
    options = {"--haystack": haystack, "--lengths": "256", "--out": tmp_path / "r.json"} | change
    where = options.pop("model", model)
    flat = [part for option in options.items() for part in option]
    code, _, error = run(where, *flat)
    assert code == 2
    assert error.startswith("gcattn: error: ")
    assert error.count("\n") == 1
    assert message in error
