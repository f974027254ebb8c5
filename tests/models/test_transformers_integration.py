"""A DRT behaves as transformers' users expect."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from gcattn.models import DRTConfig, DRTForCausalLM, DRTModel
from gcattn.nn.retriever import Retrieval
from gcattn.testing import random_config, random_model, random_tokens


@pytest.fixture
def model():
    return random_model(random_config(5, chunk_size=7))


def test_saved_and_loaded_model_gives_the_same_logits(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = DRTForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    ids = random_tokens(model.config, 2, 40)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_auto_classes_load_it(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), DRTConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), DRTModel)
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path), DRTForCausalLM)


def test_loading_keeps_weights_that_the_aligned_start_would_set(model, tmp_path):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.125)
    model.save_pretrained(tmp_path)
    loaded = DRTForCausalLM.from_pretrained(tmp_path)
    assert all((p == 0.125).all() for p in loaded.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_output_embeddings_are_tied_when_the_configuration_says_so(tied, tmp_path):
    model = random_model(random_config(5, tie_word_embeddings=tied))
    model.save_pretrained(tmp_path)
    loaded = DRTForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    shared = loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert shared == tied
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_embeddings_can_be_resized(model):
    before = model.lm_head.weight[:61].clone()
    model.resize_token_embeddings(70)
    assert model(random_tokens(model.config, 1, 9)).logits.shape[-1] == 70
    assert torch.equal(model.lm_head.weight[:61], before)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(reentrant):
    ids = random_tokens(random_config(5), 2, 60)
    gradients = []
    for checkpointing in (False, True):
        model = random_model(random_config(5, chunk_size=7)).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model(ids, labels=ids, retrieval=Retrieval(3)).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=0, atol=1e-12)


def test_loss_without_logits_is_the_same_loss(model):
    ids = random_tokens(model.config, 2, 40)
    output = model(ids, labels=ids, return_logits=False)
    assert output.logits is None
    assert torch.equal(output.loss, model(ids, labels=ids).loss)
    with pytest.raises(ValueError, match="needs labels"):
        model(ids, return_logits=False)


def test_loss_is_the_mean_cross_entropy_of_the_next_tokens(model):
    ids = random_tokens(model.config, 2, 40)
    output = model(ids, labels=ids)
    logits = output.logits[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)


def test_loss_is_divided_by_num_items_in_batch_when_it_is_given(model):
    ids = random_tokens(model.config, 2, 40)
    mean = model(ids, labels=ids).loss
    total = model(ids, labels=ids, num_items_in_batch=torch.tensor(1)).loss
    torch.testing.assert_close(total, mean * 2 * 39)


@pytest.mark.parametrize("num_items", [None, 0, torch.tensor(0)])
def test_a_batch_without_labels_has_a_loss_of_0_and_no_gradient(model, num_items):
    ids = random_tokens(model.config, 2, 20)
    given = {} if num_items is None else {"num_items_in_batch": num_items}
    loss = model(ids, labels=torch.full_like(ids, -100), use_cache=False, **given).loss
    assert loss.item() == 0
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(g is None or not g.any() for g in gradients)


def test_padding_and_document_ends_carry_no_loss(model):
    ids = random_tokens(model.config, 1, 30)
    mask = torch.ones_like(ids)
    mask[:, :8] = 0
    padded = model(ids, labels=ids, attention_mask=mask).loss
    torch.testing.assert_close(padded, model(ids[:, 8:], labels=ids[:, 8:]).loss)
    documents = (torch.arange(30) >= 12).long().unsqueeze(0)
    total = model(ids, labels=ids, document_ids=documents, num_items_in_batch=1).loss
    parts = [model(x, labels=x, num_items_in_batch=1).loss for x in ids.split([12, 18], dim=1)]
    torch.testing.assert_close(total, sum(parts))


def test_hidden_states_have_one_entry_for_the_embedding_and_each_layer(model):
    ids = random_tokens(model.config, 2, 30)
    states = model(ids, output_hidden_states=True).hidden_states
    assert len(states) == model.config.num_hidden_layers + 1
    assert all(s.shape == (2, 30, model.config.hidden_size) for s in states)
    assert torch.equal(states[0], model.model.embed_tokens(ids))
    assert torch.equal(states[-1], model.model(ids).last_hidden_state)


@pytest.mark.parametrize("method", ["learned", "random", "none"])
@pytest.mark.parametrize("groups", [1, 2])
def test_every_parameter_gets_a_gradient(method, groups):
    config = random_config(
        5,
        retrieval_method=method,
        num_retrieval_groups=groups,
        num_upper_layers=2,
        window_size=7,  # tokens see the landmark
        retrieval_top_k=3,  # of a single chunk the weight is always 1
    )
    model = random_model(config).train()
    ids = random_tokens(config, 2, 300)
    model(ids, labels=ids).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or (p.grad == 0).all()]
    assert without == []


def test_gumbel_noise_is_used_while_training_only():
    model = random_model(random_config(5, chunk_size=5, retrieval_top_k=1))
    ids = random_tokens(model.config, 1, 200)

    def chosen():
        return model(ids, output_retrieval=True).retrieval[0].indices

    assert torch.equal(chosen(), chosen())
    model.train()
    assert not torch.equal(chosen(), chosen())
    model.config.retrieval_noise = "none"
    assert torch.equal(chosen(), chosen())


def test_top_k_can_be_set_for_a_call(model):
    ids = random_tokens(model.config, 1, 100)
    selection = model(ids, retrieval=Retrieval(2), output_retrieval=True).retrieval[0]
    assert selection.indices.shape[-1] == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "Pass either input_ids"),
        ({"input_ids": torch.zeros(1, 0).long()}, "at least one token"),
        (
            {"input_ids": torch.ones(1, 4).long(), "chunk_breaks": torch.zeros(1, 3)},
            r"\[1, 4\] or \[1, 5\], got",
        ),
        ({"input_ids": torch.ones(1, 4).long(), "attention_mask": torch.zeros(1, 4)}, "no token"),
        ({"input_ids": torch.ones(1, 4).long(), "chunk_break": None}, "chunk_break"),
        ({"input_ids": torch.ones(1, 4).long(), "past_key_values": ()}, "DRTCache, got tuple"),
        ({"input_ids": torch.ones(1, 4).long(), "output_attentions": True}, "output_retrieval"),
    ],
)
def test_bad_arguments_are_refused_with_a_reason(model, kwargs, message):
    with pytest.raises(ValueError, match=message):
        model(**kwargs)
