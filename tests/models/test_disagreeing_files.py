"""Weights and a configuration that disagree are refused in one line, whoever loads them."""

import json

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from gcattn.evals.model_loading import load_causal_lm
from gcattn.models import DRTConfig, DRTForCausalLM
from gcattn.testing import random_config, random_model


@pytest.fixture
def folder(tmp_path):
    config = random_config(5, num_lower_layers=2, tie_word_embeddings=False)
    random_model(config).save_pretrained(tmp_path)
    return tmp_path


def edit(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_lower_layers": 1}, r"has besides .*lower_layers\.1"),
        ({"num_lower_layers": 3}, r"lacks .*lower_layers\.2"),
        ({"retrieval_method": "none"}, "has besides"),
    ],
    ids=str,
)
@pytest.mark.parametrize("load", [DRTForCausalLM.from_pretrained, AutoModel.from_pretrained])
def test_tensors_that_would_be_ignored_or_made_up_are_refused(folder, fields, message, load):
    edit(folder, **fields)
    with pytest.raises(ValueError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"disagree|damaged"):
        load_causal_lm(str(folder), device="cpu")


@pytest.mark.parametrize("field", ["rope_theta", "rms_norm_eps", "retrieval_temperature"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf")])
def test_numbers_that_make_no_model_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be above 0 and finite, got"):
        DRTConfig(**{field: value})


def test_weights_that_are_not_finite_are_named(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.nn.init.constant_(model.model.norm.weight, torch.nan)
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"model\.norm\.weight holds NaN or infinite") as error:
        load_causal_lm(str(folder), device="cpu")
    assert "\n" not in str(error.value)


def test_heads_may_come_and_go(folder):
    base = AutoModel.from_pretrained(folder)
    base.save_pretrained(folder.parent / "base")
    assert (
        AutoModelForCausalLM.from_pretrained(folder.parent / "base").lm_head.weight.shape[0] == 61
    )
