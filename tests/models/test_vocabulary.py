"""The vocabulary is that of the text: a landmark is no id, and what is no id is refused."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer
from transformers.trainer_pt_utils import LabelSmoother

from gcattn.models import DRTConfig, DRTForCausalLM, drt_tiny
from gcattn.testing import random_config, random_model, random_tokens

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture
def model():
    return random_model(random_config(5, chunk_size=7))


@pytest.mark.skipif(not CHECKPOINTS.exists(), reason="the source distribution holds no checkpoint")
@pytest.mark.parametrize("name", ["gcattn-tiny", "gcattn-12m"])
def test_tokenizer_configuration_and_logits_agree_in_the_number_of_ids(name):
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINTS / name)
    model = DRTForCausalLM.from_pretrained(CHECKPOINTS / name)
    with torch.no_grad():
        logits = model(tokenizer("It was", return_tensors="pt").input_ids).logits
    assert len(tokenizer) == model.config.vocab_size == logits.shape[-1]
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1


def test_losses_over_all_logits_are_finite_and_right(model):
    ids = random_tokens(model.config, 2, 40)
    output = model(ids, labels=ids)
    logits, targets = output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    smoothed = LabelSmoother(epsilon=0.1)(output, ids, shift_labels=True)
    expected = F.cross_entropy(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(smoothed, expected)
    for temperature in (0.1, 1.0, 10.0):
        entropy = torch.distributions.Categorical(logits=logits / temperature).entropy()
        assert entropy.isfinite().all() and (entropy > 0).all()
    teacher = random_model(model.config, seed=1)(ids).logits[:, :-1].flatten(0, 1)
    distilled = F.kl_div(
        logits.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert 0 < distilled < 100
    assert logits.mean().abs() < 100


def test_no_logit_stands_for_the_landmark(model):
    ids = random_tokens(model.config, 1, 30)
    with torch.no_grad():
        before = model(ids).logits
        model.model.embed_landmark.weight.add_(1.0)
        after = model(ids).logits
    assert before.shape[-1] == model.config.vocab_size == model.lm_head.out_features
    # the first chunk's tokens stand before any landmark
    assert torch.equal(before[:, :6], after[:, :6]) and not torch.allclose(before, after)


@pytest.mark.parametrize("wrong", [-1, 61, 10**6])
@pytest.mark.parametrize("use_cache", [True, False])
def test_an_input_that_is_no_id_is_named(model, wrong, use_cache):
    ids = random_tokens(model.config, 2, 9)
    ids[1, 4] = wrong
    with pytest.raises(ValueError, match=rf"input_ids must be .*0 … 60, got {wrong}\."):
        model(ids, use_cache=use_cache)
    with pytest.raises(ValueError, match=rf"input_ids must be .*0 … 60, got {wrong}\."):
        model.generate(ids, max_new_tokens=2, do_sample=False)


@pytest.mark.parametrize("wrong", [-1, -99, 61])
@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("return_logits", [True, False])
def test_a_label_that_is_no_id_is_named(model, wrong, place, return_logits):
    ids = random_tokens(model.config, 2, 9)
    labels = ids.clone()
    labels[:, 2], labels[1, place] = -100, wrong
    with pytest.raises(ValueError, match=rf"labels must be .* or -100 .*, got {wrong}\."):
        model(ids, labels=labels, return_logits=return_logits)


def test_the_last_id_may_end_texts_as_in_gpt2():
    config = random_config(5, eos_token_id=60, pad_token_id=60, bos_token_id=60)
    model = random_model(config)
    ids = random_tokens(config, 1, 20)
    ids[:, 10] = 60
    assert model(ids, labels=ids).loss.isfinite()
    with torch.no_grad():
        model.lm_head.weight[60] = 100 * model.model(ids).last_hidden_state[0, -1]
    assert model.generate(ids, do_sample=False, max_new_tokens=9)[0, 20:].tolist() == [60]


@pytest.mark.parametrize("name", ["eos_token_id", "bos_token_id", "pad_token_id"])
@pytest.mark.parametrize("wrong", [-1, 61])
def test_special_tokens_outside_the_vocabulary_are_refused(name, wrong):
    with pytest.raises(ValueError, match=rf"{name} = {wrong} must be an id .*0 … 60"):
        random_config(5, **{name: wrong})
    with pytest.raises(ValueError, match="eos_token_id = 61"):
        random_config(5, eos_token_id=[3, 61])


@pytest.mark.parametrize(
    ("size", "tied"),
    [
        (40, True),
        (70, False),
        *(
            pytest.param(size, tied, marks=pytest.mark.slow)
            for size, tied in ((40, False), (64, True), (64, False), (70, True))
        ),
    ],
)
def test_resized_embeddings_read_learn_and_generate(size, tied, tmp_path):
    model = random_model(random_config(5, tie_word_embeddings=tied, eos_token_id=2))
    before, kept = model.lm_head.weight.detach().clone(), min(size, 61)
    model.resize_token_embeddings(size)
    ids = torch.arange(size).unsqueeze(0)
    output = model(ids, labels=ids)
    output.loss.backward()
    assert output.logits.shape[-1] == size == model.config.vocab_size
    assert torch.equal(model.lm_head.weight[:kept], before[:kept])
    model.save_pretrained(tmp_path)
    loaded = DRTForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    generated = loaded.generate(ids, do_sample=False, max_new_tokens=3)
    assert torch.equal(generated, model.generate(ids, do_sample=False, max_new_tokens=3))
    with pytest.raises(ValueError, match=f"got {size}"):
        model(torch.tensor([[size]]))


def test_a_resize_that_leaves_a_special_token_outside_is_refused(model):
    model.config.eos_token_id = 50
    with pytest.raises(ValueError, match=r"eos_token_id = 50 must be an id .*0 … 49"):
        model.resize_token_embeddings(50)
    assert model.config.vocab_size == model.lm_head.out_features == 61
    model.resize_token_embeddings(50, pad_to_multiple_of=8)
    assert model.config.vocab_size == 56


def test_a_resize_gives_new_ids_a_fresh_start_in_an_aligned_model():
    model = DRTForCausalLM(drt_tiny(vocab_size=61))
    model.resize_token_embeddings(64)
    assert (model.model.embed_landmark.weight == 0).all()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (model.lm_head.weight[61:].abs().sum(1) > 0).all()


def test_a_configuration_that_counts_the_landmark_as_an_id_says_what_to_do():
    with pytest.raises(ValueError, match=r"python -m gcattn.models.landmark_migration FOLDER"):
        DRTConfig.from_dict({"model_type": "drt", "vocab_size": 61, "landmark_token_id": 60})
