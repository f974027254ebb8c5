"""Documents of any length and padding are sorted into classes."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from gcattn.models import DRTForSequenceClassification
from gcattn.testing import random_config, random_model, random_tokens


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = random_config(5, chunk_size=7, num_labels=3, pad_token_id=0)
    return DRTForSequenceClassification(config).double().eval()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("given", ["mask", "pad_token_id"])
def test_a_padded_row_scores_as_if_alone(model, side, given):
    lengths = (30, 12, 1)
    ids = random_tokens(model.config, 3, 30).clamp_min(1)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, 30 - length :] = 1
    mask = mask if side == "left" else mask.flip(1)
    ids = ids * mask
    with torch.no_grad():
        batch = model(ids, attention_mask=mask if given == "mask" else None).logits
        for row in range(3):
            alone = model(ids[row, mask[row].bool()].unsqueeze(0)).logits
            torch.testing.assert_close(batch[row : row + 1], alone, rtol=0, atol=1e-12)


def test_the_loss_follows_the_kind_of_labels(model):
    ids = random_tokens(model.config, 2, 20).clamp_min(1)
    classes = torch.tensor([2, 0])
    output = model(ids, labels=classes)
    expected = torch.nn.functional.cross_entropy(output.logits, classes)
    torch.testing.assert_close(output.loss, expected)
    assert model(ids, labels=classes, return_dict=False)[1].shape == (2, 3)


def test_a_language_model_becomes_a_classifier(tmp_path):
    language_model = random_model(random_config(5, pad_token_id=0))
    language_model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    assert isinstance(loaded, DRTForSequenceClassification)
    for name, weight in language_model.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight), name
    assert loaded.score.weight.shape == (4, 24) and loaded.score.weight.std() > 0


def test_what_has_no_token_is_refused(model):
    with pytest.raises(ValueError, match="Pass either"):
        model()
    with pytest.raises(ValueError, match="A row holds no token"):
        model(torch.zeros(2, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="see DRTForSequenceClassification"):
        model(torch.ones(2, 5, dtype=torch.long), chunk_break=None)


def test_it_trains_with_the_trainer_on_rows_of_unequal_length(tmp_path):
    pytest.importorskip("accelerate")
    sizes = {"window_size": 4, "num_lower_layers": 1, "num_retrieval_groups": 1}
    config = random_config(5, num_upper_layers=1, num_labels=2, pad_token_id=0, **sizes)
    model = DRTForSequenceClassification(config)

    def row(i):
        ids = random_tokens(config, 1, 5 + i % 7, seed=i)[0].clamp_min(3)
        ids[-2] = 1 + i % 2
        padded = torch.nn.functional.pad(ids, (0, 12 - len(ids)))
        return {"input_ids": padded, "attention_mask": (padded > 0).long(), "labels": i % 2}

    arguments = TrainingArguments(
        tmp_path, max_steps=30, learning_rate=1e-2, report_to=[], save_strategy="no", use_cpu=True
    )
    Trainer(model, arguments, train_dataset=[row(i) for i in range(64)]).train()
    rows = [row(i) for i in range(100, 120)]
    batch = {name: torch.stack([torch.as_tensor(r[name]) for r in rows]) for name in rows[0]}
    with torch.no_grad():
        right = model.eval()(**batch).logits.argmax(-1) == batch["labels"]
    assert right.float().mean() > 0.9
