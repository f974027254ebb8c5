"""Losses on recalled tokens, and what no model without context can beat."""

import math

import numpy as np
import pytest
import torch

from experiments.recall import evaluate_recall
from gcattn.data import TokenShards, prepare_shards, prepare_synthetic_shards
from gcattn.evals.token_losses import token_losses
from gcattn.evals.unigram import unigram_entropy
from gcattn.models import DRTForCausalLM, drt_tiny


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return prepare_synthetic_shards(tmp_path_factory.mktemp("recall") / "shards", 3, 600, seed=4)


def test_recalled_and_other_tokens_are_averaged_apart(shards):
    torch.manual_seed(0)
    model = DRTForCausalLM(drt_tiny()).eval()
    loss = evaluate_recall(model, shards)
    values, masks = [], []
    for number in range(3):
        document = torch.from_numpy(shards.document(number).astype("int64"))
        values.append(token_losses(model, document))
        start = shards.document_starts[number]
        masks.append(torch.from_numpy(np.array(shards.recall_mask[start + 1 : start + 599])).bool())
    values, masks = torch.cat(values), torch.cat(masks)
    assert loss.recalled == pytest.approx(values[masks].mean().item(), rel=1e-5)
    assert loss.other == pytest.approx(values[~masks].mean().item(), rel=1e-5)
    assert loss.overall == pytest.approx(values.mean().item(), rel=1e-5)


def test_shards_without_a_mask_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    plain = prepare_shards(str(tmp_path / "a.txt"), tmp_path / "shards")
    with pytest.raises(ValueError, match="no recall mask; make shards with: gcattn data synthetic"):
        evaluate_recall(DRTForCausalLM(drt_tiny()).eval(), plain)


def test_unigram_entropy_is_that_of_the_token_frequencies(tmp_path):
    (tmp_path / "a.txt").write_text("1111 2222")  # digits are tokens of their own
    prepare_shards(str(tmp_path / "a.txt"), tmp_path / "shards")
    counts = np.unique(TokenShards(tmp_path / "shards").document(0), return_counts=True)[1]
    expected = -sum(c / counts.sum() * math.log(c / counts.sum()) for c in counts)
    assert unigram_entropy(TokenShards(tmp_path / "shards")) == pytest.approx(expected)
    assert expected > 0.5
