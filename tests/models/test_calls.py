"""Calls as transformers, TRL and their collators make them."""

import pytest
import torch
from transformers import DataCollatorWithFlattening

from gcattn.memory.cache import DRTCache
from gcattn.models import DRTModel
from gcattn.testing import random_config, random_model, random_tokens

LENGTHS = (9, 1, 14, 6)


@pytest.fixture
def model():
    return random_model(random_config(5, chunk_size=7))


@pytest.fixture
def packed(model):
    """Ids [1, 30] of four documents, their document ids, and what the model says to them."""
    ids = random_tokens(model.config, 1, sum(LENGTHS))
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS)).unsqueeze(0)
    return ids, documents, model(ids, labels=ids, document_ids=documents)


def test_what_only_asks_for_the_default_is_accepted(model):
    ids = random_tokens(model.config, 2, 20)
    expected = model(ids).logits
    asked = {
        "return_dict": True,
        "output_attentions": False,
        "output_hidden_states": None,
        "cache_position": torch.arange(20),
        "position_ids": torch.arange(20).unsqueeze(0),
    }
    assert torch.equal(model(ids, **asked).logits, expected)
    base = model.model
    assert torch.equal(base(ids, **asked).last_hidden_state, base(ids).last_hidden_state)


def test_a_tuple_is_returned_where_it_is_asked_for(model):
    ids = random_tokens(model.config, 2, 20)
    expected = model(ids, labels=ids, use_cache=False)
    loss, logits = model(ids, labels=ids, use_cache=False, return_dict=False)
    assert torch.equal(loss, expected.loss) and torch.equal(logits, expected.logits)
    model.config.return_dict = False
    loss, logits = model(ids, labels=ids, use_cache=False)
    assert torch.equal(loss, expected.loss) and torch.equal(logits, expected.logits)
    (hidden,) = model.model(ids, use_cache=False)
    assert hidden.shape == (2, 20, model.config.hidden_size)
    assert torch.equal(model(ids, use_cache=False, return_dict=True).logits, expected.logits)


def test_the_configuration_may_ask_for_hidden_states(model):
    ids = random_tokens(model.config, 1, 20)
    assert model(ids).hidden_states is None
    model.config.output_hidden_states = True
    assert len(model(ids).hidden_states) == model.config.num_hidden_layers + 1
    assert model(ids, output_hidden_states=False).hidden_states is None


def test_positions_that_start_again_are_documents(model, packed):
    ids, _, expected = packed
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    for given in (positions, positions.unsqueeze(0)):
        output = model(ids, labels=ids, position_ids=given)
        assert torch.equal(output.logits, expected.logits)
        assert torch.equal(output.loss, expected.loss)


@pytest.mark.parametrize(
    "options", [{}, {"return_flash_attn_kwargs": True}, {"return_seq_idx": True}]
)
def test_rows_of_the_flattening_collator_are_packed_documents(model, packed, options):
    ids, _, expected = packed
    parts = [{"input_ids": part.tolist()} for part in ids[0].split(LENGTHS)]
    batch = DataCollatorWithFlattening(return_tensors="pt", **options)(parts)
    output = model(**batch)
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=1e-12)
    # the collator gives the first token of a document no label, and none is predicted across
    torch.testing.assert_close(output.loss, expected.loss)


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_of_a_padded_batch_are_one_document(model, side):
    ids = random_tokens(model.config, 2, 20)
    mask = torch.ones_like(ids)
    mask[1, :8] = 0
    mask = mask if side == "left" else mask.flip(1)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    for given in (positions, positions.masked_fill(mask == 0, 1)):
        output = model(ids, attention_mask=mask, position_ids=given)
        assert torch.equal(output.logits, model(ids, attention_mask=mask).logits)


def test_labels_may_be_shifted_before(model):
    ids = random_tokens(model.config, 2, 20)
    shifted = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    expected = model(ids, labels=ids).loss
    assert torch.equal(model(ids, shift_labels=shifted).loss, expected)
    # rows cut into two halves, as context parallelism cuts them
    halves = zip(ids.split(10, dim=1), shifted.split(10, dim=1), strict=True)
    first, _ = halves
    torch.testing.assert_close(
        model(first[0], shift_labels=first[1], num_items_in_batch=1).loss,
        model(ids[:, :11], labels=ids[:, :11], num_items_in_batch=1).loss,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position_ids": torch.arange(20) * 2}, "must count on from token to token"),
        ({"position_ids": torch.arange(19)}, r"position_ids must have shape .* got \[19\]"),
        ({"seq_idx": torch.zeros(1, 3)}, "seq_idx must have shape"),
        ({"cu_seq_lens_q": torch.tensor([0, 9])}, "cu_seq_lens_q must end with the tokens"),
        ({"shift_labels": torch.full((1, 20), -1)}, "got -1"),
    ],
)
def test_what_cannot_be_honoured_is_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model(random_tokens(model.config, 1, 20), **arguments)


def test_a_new_document_by_positions_is_refused_with_a_cache(model):
    ids = random_tokens(model.config, 1, 20)
    cache = model(ids, use_cache=True).past_key_values
    positions = torch.cat([torch.arange(20, 30), torch.arange(10)])
    with pytest.raises(ValueError, match="pass document_ids"):
        model(ids, past_key_values=cache, position_ids=positions)
    expected = model(torch.cat([ids, ids], dim=1)).logits[:, 20:]
    found = model(ids, past_key_values=cache, position_ids=torch.arange(20, 40)).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_checkpointing_ignores_use_cache_with_a_warning(model, caplog):
    model.train()
    (
        getattr(model, "activation_checkpointing_enable", None)
        or model.gradient_checkpointing_enable
    )()
    ids = random_tokens(model.config, 2, 20)
    output = model(ids, labels=ids, use_cache=True)
    assert output.past_key_values is None
    output.loss.backward()
    model.eval()
    assert model(ids, use_cache=True).past_key_values is not None


def test_the_base_model_takes_the_same_arguments():
    model = DRTModel(random_config(5)).eval()
    ids = random_tokens(model.config, 1, 12)
    with pytest.raises(ValueError, match="output_retrieval"):
        model(ids, output_attentions=True)
    with pytest.raises(ValueError, match=r"\['chunk_break'\]; see DRTModel.forward"):
        model(ids, chunk_break=None)


def test_a_plan_made_in_inference_mode_serves_where_gradients_are_recorded():
    model = random_model(random_config(5))
    ids = random_tokens(model.config, 2, 37)
    with torch.inference_mode():
        expected = model(ids, use_cache=True).logits
    found = model(ids, use_cache=True).logits
    found.sum().backward()
    torch.testing.assert_close(found.detach(), expected.clone(), rtol=0, atol=1e-10)


def test_chunks_are_not_encoded_into_a_cache():
    model = random_model(random_config(0))
    with pytest.raises(ValueError, match="must be a ReadingStream"):
        model.model.encode_chunks(random_tokens(model.config, 1, 9), stream=DRTCache(model.config))
