"""A whole run learns, leaves a model that loads, and refuses to start where it could not end."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from gcattn.data import TokenShards
from gcattn.models.saved_model import check_saved_model
from gcattn.train.out_of_memory import OutOfMemoryError
from gcattn.train.run import run_training
from gcattn.train.trainer import DRTTrainer

from .conftest import VOCABULARY, write_shards
from .runs import losses


def test_twenty_steps_lower_training_and_validation_loss(make_config):
    config = make_config("training.steps=20")
    outcome = run_training(config)
    train, validation = losses(config), losses(config, "validation")
    assert (outcome.step, outcome.interrupted_by) == (20, 0)
    assert list(train) == list(range(1, 21))
    assert list(validation) == [4, 8, 12, 16, 20]
    assert train[20] < train[1] - 0.5
    assert validation[20] < validation[4] - 0.3


def test_first_loss_is_that_of_guessing(make_config):
    """The loss of a step is per predicted token, whatever the number of rows and passes."""
    first = []
    for passes in (1, 3):
        config = make_config(
            "training.steps=1",
            "model.cross_attention_init=plain",  # the aligned start copies before it has learned
            f"training.gradient_accumulation={passes}",
            f"output={make_config().output}-{passes}",
        )
        run_training(config)
        first.append(losses(config)[1])
    assert first == pytest.approx([torch.tensor(len(VOCABULARY)).log().item()] * 2, rel=0.03)


def test_saved_model_loads_and_generates(trained):
    model = AutoModelForCausalLM.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert GenerationConfig.from_pretrained(trained).eos_token_id == [tokenizer.eos_token_id]
    assert not any(path.suffix == ".bin" for path in trained.iterdir())
    prompt = torch.tensor([[2, 3, 4]])
    assert model.generate(prompt, max_new_tokens=4, do_sample=False).shape == (1, 7)


def test_training_goes_on_from_a_saved_model(make_config):
    first = make_config("training.steps=20")
    folder = run_training(first).model_folder
    second = make_config(
        f"model={{from: {folder}}}", "training.steps=1", f"output={first.output}-2"
    )
    run_training(second)
    assert losses(second)[1] == pytest.approx(losses(first)[20], abs=0.6)
    assert losses(second)[1] < losses(first)[1] - 1


def test_a_model_that_is_trained_on_keeps_its_own_tokenizer(make_config, trained):
    file = trained / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 77}))
    second = make_config(f"model={{from: {trained}}}", "training.steps=1", f"output={trained}-2")
    kept = AutoTokenizer.from_pretrained(run_training(second).model_folder)
    assert kept.model_max_length == 77


def test_data_of_another_tokenizer_of_the_same_size_are_refused(make_config, trained, tmp_path):
    words = [*VOCABULARY[:2], *reversed(VOCABULARY[2:-1]), VOCABULARY[-1]]
    other = write_shards(tmp_path / "other", 9, vocabulary=words)
    output = f"output={tmp_path / 'second'}"
    with pytest.raises(ValueError, match=r"another tokenizer .*than that of the model"):
        run_training(make_config(f"model={{from: {trained}}}", f"data.train={other}", output))
    with pytest.raises(ValueError, match="were made with different tokenizers"):
        run_training(make_config(f"data.validation={other}", output))
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("documents", ["ignore", "pack", "separate"])
def test_every_documents_mode_trains(make_config, documents):
    config = make_config(
        "training.steps=6",
        f"data.documents={documents}",
        "data.sequence_length=32",
        "data.close_chunks_early=0.1",
        "training.gradient_checkpointing=true",
        "retrieval.top_k_schedule=[{step: 0, top_k: all}, {step: 1, top_k: 1}]",
    )
    run_training(config)
    assert losses(config)[6] < losses(config)[1]


def test_vocabulary_size_comes_from_the_data(make_config, tmp_path):
    without = write_shards(tmp_path / "without", 9, vocabulary=VOCABULARY[:-1])
    for folder in (None, without):
        data = [] if folder is None else [f"data.train={folder}", "data.validation=null"]
        config = make_config(
            "training.steps=1", f"output={tmp_path / 'run'}{folder is None}", *data
        )
        model = AutoModelForCausalLM.from_pretrained(run_training(config).model_folder)
        assert model.config.vocab_size == len(VOCABULARY) - (folder is not None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.vocab_size=20"], "tokenizer of 32 tokens.*vocab_size is 20"),
        (["data.sequence_length=8"], "at least model.chunk_size = 16, got 8"),
        (["data.sequence_length=100000"], "No window of sequence_length 100000"),
        (["model.chunk_size=0"], "chunk_size must be at least 2, got 0"),
        (["model.retrieval_top_k=0"], "retrieval_top_k must be at least 1, got 0"),
        (["model.preset=drt_huge"], "must be one of drt_tiny, .*got 'drt_huge'"),
        (["training.fsdp=true"], "needs CUDA GPUs"),
        (["model.retrieval_top_k=1000000000000"], "retrieval_top_k must be at most 65,536, got"),
        (["model.window_size=1000000000000"], "window_size must be at most 16,777,216, got"),
        (["model.hidden_size=1000000000000"], "parameters, .* GB in float32, but this machine has"),
        (["model.num_lower_layers=1000000000"], "parameters, .* GB in float32, but this machine"),
        (["model.vocab_size=10000000000000"], "parameters, .* GB in float32, but this machine"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(make_config, overrides, message):
    config = make_config(*overrides)
    with pytest.raises(ValueError, match=message):
        run_training(config)
    assert not Path(config.output).exists()


def test_missing_data_and_models_are_named(make_config, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/nowhere is not a folder of token"):
        run_training(make_config(f"data.train={tmp_path}/nowhere"))
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        run_training(make_config(f"model={{from: {tmp_path}/nowhere}}"))


def test_damaged_model_is_refused_in_one_line(make_config, trained):
    weights = trained / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    (trained / "manifest.json").unlink()  # as in the model of an older release
    with pytest.raises(ValueError, match="cannot be read") as error:
        run_training(make_config(f"model={{from: {trained}}}"))
    assert "\n" not in str(error.value)


def test_saved_model_may_be_edited_but_a_changed_digit_is_noticed(make_config, trained):
    file = trained / "config.json"
    whole = file.read_text()
    file.write_text(json.dumps({**json.loads(whole), "retrieval_top_k": 3}))
    check_saved_model(trained)
    file.write_text(whole.replace('"chunk_size": 16', '"chunk_size": 17'))
    with pytest.raises(ValueError, match=r"config\.json has changed since it was written"):
        run_training(make_config(f"model={{from: {trained}}}", f"output={trained}-2"))


@pytest.mark.parametrize("position", [8, 60, -40])
def test_flipped_byte_of_a_model_is_refused_in_one_line_with_its_file(
    make_config, trained, position
):
    weights = trained / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[position] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors has changed since it was") as error:
        run_training(make_config(f"model={{from: {trained}}}"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_lower_layers": 1}, "disagree: the file has besides .* tensors, model.lower_layers"),
        ({"num_lower_layers": 3}, "disagree: the file lacks .* tensors, model.lower_layers"),
        ({"num_retrieval_groups": 2}, "disagree: the file has besides"),
        ({"landmark_pooling": True}, "disagree: the file lacks"),
        ({"hidden_size": 32}, "disagree: 70 tensors have other shapes"),
    ],
    ids=str,
)
@pytest.mark.parametrize("where", ["file", "section"])
def test_weights_and_configuration_that_disagree_are_refused(
    make_config, trained, change, message, where
):
    """Whether config.json was edited or the run asks for other fields."""
    fields = dict(change)
    if where == "file":
        file = trained / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        fields = {}
    section = yaml.safe_dump({"from": str(trained), **fields}, default_flow_style=True, width=9999)
    with pytest.raises(ValueError, match=message) as error:
        run_training(make_config(f"model={section.strip()}", f"output={trained}-2"))
    assert "\n" not in str(error.value)


def test_run_that_does_not_fit_into_memory_is_one_line(make_config, monkeypatch):
    def full(*args, **kwargs):
        torch.empty(2**60)

    monkeypatch.setattr(DRTTrainer, "compute_loss", full)
    with pytest.raises(OutOfMemoryError, match=r"lower training\.batch_size") as error:
        run_training(make_config())
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused(make_config, trained):
    model = AutoModelForCausalLM.from_pretrained(trained)
    torch.nn.init.constant_(model.model.norm.weight, torch.nan)
    model.save_pretrained(trained)
    (trained / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"model\.norm\.weight holds NaN"):
        run_training(make_config(f"model={{from: {trained}}}", f"output={trained}-2"))


def test_an_id_beyond_the_vocabulary_is_searched_in_all_shards(tmp_path):
    """A vocabulary check must see a forbidden token that only one document holds."""
    from gcattn.data.tokenizer_checks import check_vocabulary

    vocabulary = [*VOCABULARY, "more"]
    shards = TokenShards(write_shards(tmp_path / "bad", 5, vocabulary=vocabulary, extra_token=32))
    shards.vocab_size = 32  # as an index says that is wrong
    with pytest.raises(ValueError, match=r"the id 32, beyond the vocabulary of 32"):
        check_vocabulary(shards, 33)
