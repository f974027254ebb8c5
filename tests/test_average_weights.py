"""The mean of models: of one with itself it answers as that does, whatever its temperature."""

import sys
from pathlib import Path

import pytest
import torch

from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.testing import random_tokens

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from average_weights import average


def save(folder, seed, **overrides):
    torch.manual_seed(seed)
    model = DRTForCausalLM(drt_tiny(vocab_size=64, **overrides)).eval()
    model.save_pretrained(folder)
    return model


def test_a_temperature_goes_into_the_weights(tmp_path):
    model = save(tmp_path / "a", 0, retrieval_temperature=0.5)
    mean = average([str(tmp_path / "a")] * 2).eval()
    assert mean.config.retrieval_temperature == 1
    ids = random_tokens(model.config, 1, 100)
    with torch.no_grad():
        torch.testing.assert_close(mean(ids).logits, model(ids).logits)


def test_every_weight_is_the_mean(tmp_path):
    weights = [save(tmp_path / name, seed).state_dict() for seed, name in enumerate("ab")]
    mean = average([str(tmp_path / name) for name in "ab"]).state_dict()
    for name, value in mean.items():
        torch.testing.assert_close(value, (weights[0][name] + weights[1][name]) / 2)


def test_other_configurations_are_refused(tmp_path):
    save(tmp_path / "a", 0)
    save(tmp_path / "b", 0, retrieval_top_k=2)
    with pytest.raises(ValueError, match="must be of one configuration"):
        average([str(tmp_path / name) for name in "ab"])
