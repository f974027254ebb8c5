"""What transformers' own suites ask of a causal language model, for a DRT of their size.

The wheel of transformers brings no suites, so the claims of its model and generation testers stand
here in words of our own. What they assume and a DRT is not built like is in `EXCLUDED`, with the
reason; each entry is a claim itself: the request is refused, and not answered wrongly.
"""

import copy
import inspect
import pickle

import pytest
import torch
from transformers import GenerationConfig

from gcattn.models import DRTConfig, DRTForCausalLM, DRTForSequenceClassification, DRTModel
from gcattn.testing import random_tokens

EXCLUDED = {
    "attention outputs": "there is no [T, T] attention; output_retrieval says what was read",
    "static and quantized caches": "a DRTCache holds chunks and a window, not cache.layers",
    "crop of a cache, assisted generation": "chunks that are encoded cannot be taken apart",
    "continuous batching": "keys and values do not lie in pages",
    "flash attention, flex attention": "kernels are chosen by impl, not by attn_implementation",
}
CLASSES = [DRTModel, DRTForCausalLM, DRTForSequenceClassification]
GREEDY = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}


@pytest.fixture
def config():
    return DRTConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_lower_layers=1,
        num_upper_layers=1,
        num_encoder_layers=1,
        chunk_size=5,
        window_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


@pytest.fixture
def inputs(config):
    ids = random_tokens(config, 3, 13).clamp_min(3)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    return {"input_ids": ids, "attention_mask": mask}


def first(output):
    return output[0] if isinstance(output, tuple) else output.to_tuple()[0]


@pytest.mark.parametrize("model_class", CLASSES)
def test_outputs_are_deterministic_and_survive_saving(model_class, config, inputs, tmp_path):
    model = model_class(config).eval()
    with torch.no_grad():
        before = first(model(**inputs))
        assert torch.equal(first(model(**inputs)), before)
        model.save_pretrained(tmp_path)
        loaded = model_class.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(first(loaded(**inputs)), before)
        assert torch.equal(first(copy.deepcopy(model)(**inputs)), before)
        assert torch.equal(first(pickle.loads(pickle.dumps(model))(**inputs)), before)


@pytest.mark.parametrize("model_class", CLASSES)
def test_every_parameter_is_initialised_as_the_configuration_says(model_class, config):
    config.cross_attention_init, config.initializer_range = "plain", 1e-10
    for name, parameter in model_class(config).named_parameters():
        if "convolution" not in name:
            assert round(parameter.mean().item(), 6) in (0.0, 1.0), name


@pytest.mark.parametrize("model_class", CLASSES)
def test_the_first_argument_is_input_ids_and_embeddings_may_replace_them(
    model_class, config, inputs
):
    model = model_class(config).eval()
    assert next(iter(inspect.signature(model.forward).parameters)) == "input_ids"
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    with torch.no_grad():
        expected = first(model(**inputs))
        found = first(model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("model_class", CLASSES)
def test_tuples_hold_what_dictionaries_hold(model_class, config, inputs):
    model = model_class(config).eval()
    for options in ({}, {"output_hidden_states": True}):
        with torch.no_grad():
            named = model(**inputs, **options)
            plain = model(**inputs, **options, return_dict=False)
        assert len(plain) == len(named.to_tuple())
        assert torch.equal(plain[0], named.to_tuple()[0])


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_gives_gradients(model_class, config, inputs, checkpointing):
    model = model_class(config).train()
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)()
    output = model(**inputs)
    first(output).square().mean().backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


@pytest.mark.parametrize("model_class", CLASSES)
def test_the_first_hidden_state_holds_the_gradient_of_the_embeddings(model_class, config, inputs):
    output = model_class(config)(**inputs, output_hidden_states=True)
    embeds = output.hidden_states[0]
    embeds.retain_grad()
    output[0].flatten()[0].backward()
    assert embeds.grad is not None and embeds.grad.abs().sum() > 0


def test_embeddings_can_be_exchanged_resized_and_tied(config, inputs):
    model = DRTForCausalLM(config).eval()
    for size in (109, 84):
        model.resize_token_embeddings(size)
        assert model.config.vocab_size == size == model.get_input_embeddings().num_embeddings
        assert model.get_output_embeddings().out_features == size
        assert model.lm_head.weight is model.model.embed_tokens.weight
        logits = model(inputs["input_ids"].clamp_max(size - 1)).logits
        assert logits.shape[-1] == size
    model.set_input_embeddings(torch.nn.Embedding(84, config.hidden_size))
    assert model.get_input_embeddings() is model.model.embed_tokens


def test_the_last_logits_are_those_of_all(config, inputs):
    model = DRTForCausalLM(config).eval()
    with torch.no_grad():
        whole = model(**inputs).logits
        torch.testing.assert_close(model(**inputs, logits_to_keep=1).logits, whole[:, -1:])
        some = torch.tensor([0, 5, 12])
        torch.testing.assert_close(model(**inputs, logits_to_keep=some).logits, whole[:, some])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 2},
        {"num_beams": 2, "num_return_sequences": 2},
        {"do_sample": True, "top_p": 0.9},
        {"do_sample": True, "num_return_sequences": 3},
        {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
        {"use_cache": False},
        {"prefill_chunk_size": 4},
    ],
    ids=str,
)
def test_every_way_to_generate_gives_rows_and_scores(config, inputs, options):
    model = DRTForCausalLM(config).eval()
    asked = GREEDY | {"return_dict_in_generate": True, "output_scores": True} | options
    output = model.generate(**inputs, **asked)
    rows = 3 * options.get("num_return_sequences", 1)
    assert output.sequences.shape == (rows, 19)
    assert (output.sequences < config.vocab_size).all()
    assert len(output.scores) == 6 and output.scores[0].shape[-1] == config.vocab_size


def test_generation_goes_on_where_it_stopped(config, inputs):
    model = DRTForCausalLM(config).eval()
    ids = inputs["input_ids"][:1]
    options = GREEDY | {"close_prompt": False, "return_dict_in_generate": True}
    whole = model.generate(ids, **(options | {"max_new_tokens": 6})).sequences
    half = options | {"max_new_tokens": 3, "min_new_tokens": 3}
    begun = model.generate(ids, **half)
    going = model.generate(begun.sequences, past_key_values=begun.past_key_values, **half)
    assert torch.equal(going.sequences, whole)


def test_left_padding_changes_no_continuation(config, inputs):
    model = DRTForCausalLM(config).eval()
    padded = model.generate(**inputs, **GREEDY)[1:2, 13:]
    alone = model.generate(inputs["input_ids"][1:2, 4:], **GREEDY)[:, 9:]
    assert torch.equal(padded, alone)


def test_it_is_a_model_that_generates_and_has_a_generation_configuration(config):
    model = DRTForCausalLM(config)
    assert model.can_generate() and isinstance(model.generation_config, GenerationConfig)
    assert model.generation_config.eos_token_id == config.eos_token_id
    assert model.num_parameters() == config.count_parameters()
    assert model.main_input_name == "input_ids"


def test_what_is_excluded_is_refused(config, inputs, tmp_path):
    model = DRTForCausalLM(config).eval()
    refused = {
        "attention outputs": lambda: model(**inputs, output_attentions=True),
        "static and quantized caches": lambda: model.generate(
            **inputs, cache_implementation="static", **GREEDY
        ),
        "crop of a cache, assisted generation": lambda: model(**inputs).past_key_values.crop(-1),
        "continuous batching": lambda: model.generate_batch([[3, 4]]),
        "flash attention, flex attention": lambda: DRTForCausalLM.from_pretrained(
            tmp_path, attn_implementation="flex_attention"
        ),
    }
    model.save_pretrained(tmp_path)
    assert refused.keys() == EXCLUDED.keys()
    for name, ask in refused.items():
        with torch.no_grad(), pytest.raises((ValueError, ImportError)):
            ask()
            pytest.fail(name)
