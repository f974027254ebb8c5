"""Claims about `gcattn eval perplexity` and `gcattn generate`, on a small saved model."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from gcattn import cli
from gcattn.data import TokenShardWriter, load_tokenizer, train_tokenizer
from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.results import read_result

VOCAB_SIZE = 268


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Return a tokenizer of few tokens: every command loads one, and the shipped one takes long."""
    texts = iter(["the house by the river " * 9])
    return load_tokenizer(
        train_tokenizer(texts, VOCAB_SIZE, tmp_path_factory.mktemp("tokenizer") / "small")
    )


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved") / "drt"
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "head_dim": 8}
    layers = {"num_lower_layers": 1, "num_upper_layers": 1, "num_encoder_layers": 1}
    config = drt_tiny(
        vocab_size=VOCAB_SIZE, num_key_value_heads=1, num_retrieval_groups=1, **sizes, **layers
    )
    DRTForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "shards"
    with TokenShardWriter(folder, tokenizer, "test") as writer:
        for length in (90, 300):
            text = "the house by the river " * length
            writer.append(tokenizer(text, return_tensors="np").input_ids[0][:length], len(text))
    return folder


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_perplexity_writes_numbers_and_a_picture(capsys, model, data, tmp_path):
    out = tmp_path / "results" / "small.json"
    options = ["--data", data, "--lengths", "64,256", "--segment-length", 50, "--out", out]
    code, printed, _ = run(capsys, "eval", "perplexity", model, *options, "--device", "cpu")
    assert code == 0
    assert str(out) in printed
    result = read_result(out)
    assert result["name"] == "small"
    assert result["config"]["segment_length"] == 50
    lengths = result["metrics"]["lengths"]
    assert [entry["length"] for entry in lengths] == [64, 256]
    assert [entry["num_documents"] for entry in lengths] == [2, 1]
    # random weights know nothing: ln V = 5.6, and what one draw of them happens to prefer
    assert lengths[0]["loss"]["mean"] == pytest.approx(5.6, abs=1)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "missing"}, "There is no folder missing"),
        ({"--data": "missing"}, "is not a folder of token shards"),
        ({"--lengths": "1k"}, "the longest has 300"),
        ({"--lengths": "much"}, "A length must look like"),
        ({"--segment-length": "0"}, "--segment-length"),
        ({"--memory-tier": "moon"}, "moon"),
        ({"--out": "results.txt"}, "--out must end in .json"),
        ({"--out": "/dev/null/results.json"}, "/dev/null"),
        ({"--device": "tpux"}, "is not a device"),
    ],
    ids=lambda value: " ".join(*value.items()) if isinstance(value, dict) else "",
)
def test_bad_input_is_one_line(capsys, monkeypatch, model, data, tmp_path, change, message):
    monkeypatch.chdir(tmp_path)
    options = {"--data": data, "--lengths": "64", "--out": tmp_path / "r.json"} | change
    where = options.pop("model", model)
    flat = [part for option in options.items() for part in option]
    code, _, err = run(capsys, "eval", "perplexity", where, *flat)
    assert code == 2
    assert err.startswith("gcattn: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.fixture
def other_tokenizer(model, tmp_path):
    """A copy of the model whose tokenizer has two letters exchanged."""
    folder = shutil.copytree(model, tmp_path / "other")
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_data_of_another_tokenizer_of_the_same_size_are_refused(
    capsys, other_tokenizer, data, tmp_path
):
    options = ["--data", data, "--lengths", "64", "--out", tmp_path / "r.json"]
    code, _, err = run(capsys, "eval", "perplexity", other_tokenizer, *options)
    assert code == 2
    assert "were made with another tokenizer (test) than that of the model" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("command", [("perplexity", "--data"), ("needle", "--haystack")])
def test_an_impossible_id_stops_an_evaluation_before_it_begins(
    capsys, monkeypatch, model, data, tmp_path, command
):
    # as an older release wrote them: checksums would tell earlier
    copy = shutil.copytree(
        data, tmp_path / "shards", ignore=shutil.ignore_patterns("manifest.json")
    )
    file = copy / "shard_00000.bin"
    ids = np.fromfile(file, dtype="<u2")
    ids[-2] = 65_000
    ids.tofile(file)
    monkeypatch.setattr("gcattn.evals.perplexity.token_losses", pytest.fail)
    monkeypatch.setattr("gcattn.evals.needle_cells.answer_samples", pytest.fail)
    options = [command[1], copy, "--lengths", "64", "--out", tmp_path / "r.json"]
    code, _, err = run(capsys, "eval", command[0], model, *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "shards is damaged: token 390 has the id 65000" in err


@pytest.mark.parametrize("options", [["--temperature", 0], ["--temperature", 1, "--seed", 3]])
def test_streamed_text_is_the_text_at_the_end(capsys, model, options):
    command = ["generate", model, "--prompt", "By the river", "--max-new-tokens", 12, *options]
    streamed = run(capsys, *command, "--stream")
    whole = run(capsys, *command, "--no-stream", "--memory-tier", "host")
    assert streamed[0] == whole[0] == 0
    assert streamed[1].split() == whole[1].split() != []


def test_seeds_choose_the_text(capsys, model):
    command = ["generate", model, "--prompt", "By the river", "--max-new-tokens", 12]
    texts = [run(capsys, *command, "--seed", seed)[1] for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_a_prompt_file_is_read_in_segments(capsys, model, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("the house by the river " * 60)
    command = ["generate", model, "--prompt-file", file, "--max-new-tokens", 6, "--temperature", 0]
    texts = [run(capsys, *command, "--segment-length", n) for n in (64, 4096)]
    assert texts[0][0] == 0
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --prompt TEXT or --prompt-file FILE"),
        (["--prompt", "a", "--prompt-file", "b"], "either --prompt TEXT or --prompt-file FILE"),
        (["--prompt", ""], "The prompt is empty"),
        (["--prompt-file", "missing.txt"], "missing.txt"),
        (["--prompt", "a", "--temperature", "-1"], "--temperature"),
    ],
)
def test_a_bad_prompt_is_one_line(capsys, model, options, message):
    code, out, err = run(capsys, "generate", model, *options)
    assert (code, out) == (2, "")
    assert err.startswith("gcattn: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_prompt_of_bytes_that_are_no_text_is_one_line(capsys, model):
    code, out, err = run(capsys, "generate", model, "--prompt", "caf\udce9")
    assert (code, out) == (2, "")
    assert "The prompt holds bytes that are not UTF-8" in err
    assert err.count("\n") == 1


def test_a_prompt_that_a_plain_locale_could_not_decode_is_read(capsys, model):
    command = ["--max-new-tokens", 4, "--temperature", 0]
    texts = [
        run(capsys, "generate", model, "--prompt", prompt, *command)[1]
        for prompt in ("café", "caf\udcc3\udca9")
    ]
    assert texts[0] == texts[1] != ""


def test_a_byte_order_mark_is_no_part_of_a_prompt(capsys, model, tmp_path):
    (tmp_path / "a.txt").write_text("By the river", encoding="utf-8-sig")
    command = ["generate", model, "--max-new-tokens", 4, "--temperature", 0]
    marked = run(capsys, *command, "--prompt-file", tmp_path / "a.txt")
    assert marked == run(capsys, *command, "--prompt", "By the river")
    assert marked[0] == 0


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
@pytest.mark.slow
def test_an_ascii_terminal_loses_no_output(monkeypatch, model, stream):
    """Letters that it does not have are printed as their numbers."""
    written = []
    for encoding in ("utf-8", "ascii"):
        terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", terminal)
        arguments = ["generate", str(model), "--prompt", "漢字", "--max-new-tokens", "300", stream]
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        terminal.flush()
        assert stop.value.code == 0
        written.append(terminal.buffer.getvalue())
    assert written[0].decode("utf-8").encode("ascii", "backslashreplace") == written[1]
    assert not written[0].isascii()


@pytest.mark.parametrize("options", [["--temperature", 0], ["--temperature", 1]])
def test_a_model_whose_scores_are_no_numbers_generates_nothing_and_says_so(
    capsys, model, tmp_path, options
):
    copy = shutil.copytree(model, tmp_path / "damaged")
    damaged = DRTForCausalLM.from_pretrained(copy)
    damaged.model.norm.weight.data.fill_(3e38)  # finite, and too much for a score
    damaged.save_pretrained(copy)
    code, out, err = run(capsys, "generate", copy, "--prompt", "a", *options)
    assert (code, out.strip()) == (2, "")
    assert "not finite" in err


def test_a_temperature_too_low_to_divide_by_is_one_line(capsys, model):
    code, _, err = run(capsys, "generate", model, "--prompt", "a", "--temperature", "1e-300")
    assert (code, err.count("\n")) == (2, 1)
    assert "--temperature must be 0" in err


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000])
def test_values_that_no_setting_has_are_one_line(capsys, model, data, value):
    options = ["--data", data, "--lengths", "64", "--set", f"chunk_size={value}"]
    code, _, err = run(capsys, "eval", "perplexity", model, *options)
    assert (code, err) == (
        2,
        "gcattn: error: --set chunk_size: the text after = is not a value.\n",
    )
