"""The aligned start: cross-attention matches content and copies from the first step."""

import pytest
import torch

from gcattn.models import DRTForCausalLM, DRTModel, drt_tiny
from gcattn.nn.decoder_layer import RetrievalDecoderLayer
from gcattn.testing import random_config, random_model, random_tokens


def maps(model):
    base = model.base_model
    layers = [layer for group in base.retrieval_groups for layer in group.layers]
    reading = [layer for layer in layers if isinstance(layer, RetrievalDecoderLayer)]
    return base.chunk_encoder, [layer.cross_attention for layer in reading]


@pytest.mark.parametrize("model_class", [DRTForCausalLM, DRTModel])
def test_aligned_start_uses_the_keys_map_for_queries_and_gives_values_back(model_class):
    config = random_config(
        0,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        cross_attention_init="aligned",
        cross_attention_interval=1,
    )
    encoder, modules = maps(model_class(config))
    x = torch.randn(500, 32)
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    keys = encoder.k_proj(x)
    assert keys.std().item() == pytest.approx(1.3, rel=0.1)
    heads = keys.unflatten(-1, (2, 8)).repeat_interleave(2, dim=1)
    read = encoder.v_proj(x).unflatten(-1, (2, 8)).repeat_interleave(2, dim=1).flatten(1)
    projection = encoder.v_proj.weight.T @ encoder.v_proj.weight  # onto what the values hold
    for module in modules:
        assert torch.equal(module.q_proj(x).unflatten(-1, (4, 8)), heads)
        # one layer reads: another would ask with what it read
        given = (0.5 if module is modules[-1] else 0.05) * x @ projection
        torch.testing.assert_close(module.o_proj(read), given, rtol=0, atol=1e-4)
        assert len(modules) == config.num_upper_layers


def test_aligned_start_lets_the_token_dominate_the_residual_stream():
    config = random_config(0, hidden_size=64, vocab_size=500, initializer_range=0.02)
    for init, expected in (("aligned", 64**-0.5), ("plain", 0.02)):
        config.cross_attention_init = init
        model = DRTForCausalLM(config).model
        assert model.embed_tokens.weight.std().item() == pytest.approx(expected, rel=0.05)
        # an empty landmark: what landmarks have in common would hide what tells them apart
        assert (model.embed_landmark.weight == 0).all() == (init == "aligned")


@pytest.mark.parametrize("hidden_size", [64, 256, pytest.param(512, marks=pytest.mark.slow)])
def test_untrained_model_retrieves_and_copies_at_any_width(hidden_size):
    torch.manual_seed(0)
    config = drt_tiny(
        vocab_size=500,
        hidden_size=hidden_size,
        num_attention_heads=hidden_size // 32,
        num_upper_layers=4,
        landmark_pooling=True,
    )
    B, T = 12, 600
    ids = torch.randint(0, 499, (B, T))
    said = ids[torch.arange(B)[:, None], torch.randint(20, 500, (B, 1)) + torch.arange(6)]
    ids[:, -5:] = said[:, :5]  # the row ends with what it said once; the sixth token follows
    breaks = torch.zeros(B, T, dtype=torch.bool)
    breaks[:, -2] = True  # as in generation: the chunk closes in front of the last token
    with torch.no_grad():
        model = DRTForCausalLM(config).eval()
        logits = model(ids, chunk_breaks=breaks, logits_to_keep=1).logits[:, -1]
    ranks = (logits > logits.gather(1, said[:, 5:])).sum(1).float()
    assert ranks.median() <= 3


def test_plain_start_draws_every_map_on_its_own():
    config = random_config(0, cross_attention_init="plain", initializer_range=0.02)
    encoder, modules = maps(DRTForCausalLM(config))
    for weight in [encoder.k_proj.weight, encoder.v_proj.weight, modules[0].q_proj.weight]:
        assert weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_a_trained_model_is_not_started_again():
    model = DRTForCausalLM(random_config(0, cross_attention_init="aligned"))
    with torch.no_grad():
        model.model.chunk_encoder.k_proj.weight.fill_(0.5)
    model.init_weights()
    assert (model.model.chunk_encoder.k_proj.weight == 0.5).all()


@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_scores_start_at_so_many_times_the_cosine(scale):
    torch.manual_seed(0)
    config = drt_tiny(vocab_size=64, initial_score_scale=scale)
    model = DRTForCausalLM(config)
    hidden = torch.randn(5, config.hidden_size)
    query = model.model.retrieval_groups[0].retriever.norm(hidden)
    landmark = torch.nn.functional.normalize(torch.randn(5, config.hidden_size), dim=-1)
    landmark = landmark * config.hidden_size**0.5  # what a norm leaves
    scores = (query * landmark).sum(-1) * config.hidden_size**-0.5
    cosine = torch.nn.functional.cosine_similarity(hidden, landmark)
    torch.testing.assert_close(scores, scale * cosine, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="initial_score_scale must be above 0"):
        drt_tiny(initial_score_scale=0)


def test_temperature_divides_the_scores():
    weights = {}
    for temperature in (1.0, 0.25):
        model = random_model(drt_tiny(vocab_size=64, retrieval_temperature=temperature))
        ids = random_tokens(model.config, 1, 15 * 6)
        with torch.no_grad():
            output = model(ids, output_retrieval=True)
        weights[temperature] = output.retrieval[0].weights[0, -1].sort(descending=True).values
    log_ratio = {t: (w[0] / w[1]).log() for t, w in weights.items()}
    torch.testing.assert_close(log_ratio[0.25], 4 * log_ratio[1.0])
    with pytest.raises(ValueError, match="retrieval_temperature must be above 0"):
        drt_tiny(retrieval_temperature=0)
