"""Claims about loading a saved model: damage and misuse are one clear sentence."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from gcattn.evals.model_loading import load_causal_lm


@pytest.fixture
def copy(saved_drt, tmp_path):
    return shutil.copytree(saved_drt, tmp_path / "copy")


def test_a_loaded_model_is_ready_to_evaluate(saved_drt):
    model = load_causal_lm(str(saved_drt), device="cpu", dtype="bfloat16", memory_tier="host")
    assert not model.training
    assert model.dtype == torch.bfloat16
    assert model.config.memory_tier == "host"


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32")],
)
def test_on_a_cpu_a_drt_keeps_the_dtype_it_was_saved_in_unless_that_is_slow(
    saved_drt, saved, loaded, tmp_path
):
    load_causal_lm(str(saved_drt), device="cpu", dtype=saved).save_pretrained(tmp_path)
    assert load_causal_lm(str(tmp_path), device="cpu").dtype == getattr(torch, loaded)


def test_other_models_are_widened_on_a_cpu(make_llama, tmp_path):
    make_llama().bfloat16().save_pretrained(tmp_path)
    assert load_causal_lm(str(tmp_path), device="cpu").dtype == torch.float32


@pytest.mark.parametrize("name", ["missing", "missing/model", "./a/b/c", "x y/z"])
def test_a_missing_folder_is_not_looked_up_on_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "missing").mkdir(exist_ok=name == "missing/model")
    with pytest.raises(FileNotFoundError, match=r"no config\.json|There is no folder"):
        load_causal_lm(name)


def test_the_folder_of_a_run_points_to_its_model(copy):
    copy.rename(copy.parent / "run")
    run = copy.parent / "run"
    (run / "model").mkdir()
    (run / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"did you mean .*run/model\?"):
        load_causal_lm(str(run))


def test_a_damaged_configuration_is_refused(copy):
    (copy / "config.json").write_text('{"model_type": "drt", "chunk_size": 0}')
    with pytest.raises(ValueError, match="cannot be read"):
        load_causal_lm(str(copy), device="cpu")


def test_cut_weights_are_refused(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read"):
        load_causal_lm(str(copy), device="cpu")


def test_missing_weights_are_refused(copy):
    file = copy / "model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[-1]
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"lacks 1 tensors, {name} among them"):
        load_causal_lm(str(copy), device="cpu")


def test_a_memory_tier_is_refused_for_other_models(make_llama, tmp_path):
    make_llama(50).save_pretrained(tmp_path)
    assert load_causal_lm(str(tmp_path), device="cpu").config.model_type == "llama"
    with pytest.raises(ValueError, match="this one is 'llama'"):
        load_causal_lm(str(tmp_path), device="cpu", memory_tier="host")


def test_a_model_runs_with_other_fields_than_it_was_saved_with(saved_drt, make_llama, tmp_path):
    saved = load_causal_lm(str(saved_drt), device="cpu")
    changes = {"softmax_off_by_one": True, "sink_logit": 50.0}
    changed = load_causal_lm(str(saved_drt), device="cpu", changes=changes)
    assert (changed.config.sink_logit, saved.config.sink_logit) == (50, 0)
    ids = torch.arange(saved.config.chunk_size * 3)[None] % 40
    assert not torch.equal(changed(ids).logits, saved(ids).logits)
    with pytest.raises(ValueError, match=r"no field 'sink_logits'; did you mean sink_logit\?"):
        load_causal_lm(str(saved_drt), device="cpu", changes={"sink_logits": 1.0})
    make_llama(50).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="sink_logit can be chosen for DRT models only"):
        load_causal_lm(str(tmp_path), device="cpu", changes={"sink_logit": 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpux"}, "'tpux' is not a device"),
        ({"device": "meta"}, "Device 'meta' can't compute here"),
        ({"device": "xla"}, "Device 'xla' can't compute here"),
        ({"dtype": "int8"}, "dtype must be one of auto, float32"),
    ],
)
def test_options_that_do_not_exist_are_refused(saved_drt, options, message):
    with pytest.raises(ValueError, match=message):
        load_causal_lm(str(saved_drt), **options)


def test_a_tokenizer_of_another_size_is_refused(copy, make_drt, tmp_path):
    make_drt(vocab_size=300).save_pretrained(copy)
    with pytest.raises(ValueError, match=r"has 16383 tokens, the model knows 300: .*put that back"):
        load_causal_lm(str(copy), device="cpu")


def test_a_tokenizer_that_ends_texts_with_another_token_is_refused(copy):
    file = copy / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [5, 7]}))
    with pytest.raises(ValueError, match="ends a text with token 0, the model with 5, 7"):
        load_causal_lm(str(copy), device="cpu")


def test_weights_of_other_shapes_are_named_with_both(copy):
    file = copy / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "intermediate_size": 32}))
    with pytest.raises(
        ValueError, match=r"disagree: \d+ tensors have other shapes, \S+ among"
    ) as e:
        load_causal_lm(str(copy), device="cpu")
    assert re.search(r"\[.*24.*\] in the file, \[.*32.*\] by config\.json", str(e.value))
    assert "above report" not in str(e.value)


@pytest.mark.parametrize("name", ["dtype", "model_type", "architectures", "_name", "torch_dtype"])
def test_only_fields_of_the_model_can_be_changed(saved_drt, name):
    with pytest.raises(ValueError, match=f"no field '{name}'"):
        load_causal_lm(str(saved_drt), device="cpu", changes={name: "x"})
