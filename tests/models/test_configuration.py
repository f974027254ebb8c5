"""What a configuration accepts, and what it says about costs."""

import pytest

from gcattn.models import PRESETS, DRTConfig, DRTForCausalLM, drt_34m, drt_128m, drt_tiny
from gcattn.testing import random_config


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", ["learned", "none"])
def test_parameter_count_is_exact(seed, method):
    config = random_config(seed, retrieval_method=method, tie_word_embeddings=seed % 2 == 0)
    model = DRTForCausalLM(config)
    assert config.count_parameters() == sum(p.numel() for p in model.parameters())
    tables = 1 if config.tie_word_embeddings else 2
    embeddings = (tables * config.vocab_size + 1) * config.hidden_size  # and the landmark's
    assert config.count_parameters(embeddings=False) == config.count_parameters() - embeddings


def test_presets_have_the_sizes_that_their_names_say():
    millions = {
        name: round(preset().count_parameters() / 1e6, 1) for name, preset in PRESETS.items()
    }
    assert 10 <= millions["drt_12m"] <= 13
    assert 30 <= millions["drt_34m"] <= 38
    # the paper's reads in all upper layers; without five of them there are 6M parameters less
    assert 115 <= millions["paper_128m"] <= 135 and 110 <= millions["drt_128m"] <= 135
    assert 320 <= millions["drt_350m"] <= 380
    assert drt_128m().hidden_size == 768 and drt_128m(retrieval_top_k=4).retrieval_top_k == 4


def test_costs_per_token_do_not_depend_on_context_but_grow_with_top_k():
    base, wide = drt_34m(), drt_34m(retrieval_top_k=16)
    assert base.flops_per_token() == 3 * base.flops_per_token(training=False)
    added = wide.flops_per_token(training=False) - base.flops_per_token(training=False)
    assert added == pytest.approx(4 * 512 * 64 * 8 * 64 / 63, rel=1e-3)
    held = base.memory_bytes_per_token()
    assert held["landmarks"] == pytest.approx(512 * 2 / 63)
    assert held["keys_values"] == pytest.approx(2 * 64 * 512 * 2 / 63)


def test_defaults_follow_from_the_other_fields():
    config = DRTConfig(hidden_size=96, num_attention_heads=4, vocab_size=100)
    assert (config.head_dim, config.num_key_value_heads) == (24, 4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("chunk_size", 0, "chunk_size must be at least 2, got 0"),
        ("retrieval_top_k", 0, "retrieval_top_k must be at least 1, got 0"),
        ("window_size", 0, "window_size must be at least 1, got 0"),
        ("num_key_value_heads", 5, "12 must be a multiple of num_key_value_heads = 5"),
        ("num_retrieval_groups", 4, "6 must be a multiple of num_retrieval_groups = 4"),
        ("head_dim", 7, "head_dim must be even"),
        ("landmark_token_id", 5, "landmark has an embedding of its own, outside the vocabulary"),
        ("chunk_sise", 8, "no field 'chunk_sise'; did you mean chunk_size"),
        ("window_size", "8", "window_size"),
        ("retrieval_method", "bm25", "retrieval_method"),
        ("sink_logit", float("inf"), "sink_logit must be finite"),
        ("memory_tier", "tape", "memory_tier"),
    ],
)
def test_values_that_do_not_fit_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        DRTConfig(**{field: value})


@pytest.mark.parametrize(
    ("upper", "groups", "interval", "reads"),
    [
        (4, 1, 1, "1111"),
        (4, 1, 2, "0101"),
        (4, 2, 2, "0101"),
        (6, 2, 2, "101101"),
        (3, 1, 5, "001"),
    ],
)
def test_the_last_layer_of_a_group_reads_and_every_so_many_th_before_it(
    upper, groups, interval, reads
):
    config = drt_tiny(
        vocab_size=64,
        num_upper_layers=upper,
        num_retrieval_groups=groups,
        cross_attention_interval=interval,
    )
    model = DRTForCausalLM(config)
    layers = [layer for group in model.model.retrieval_groups for layer in group.layers]
    assert "".join(str(int(hasattr(layer, "cross_attention"))) for layer in layers) == reads
    assert config.num_reading_layers == reads.count("1")
    assert config.count_parameters() == sum(p.numel() for p in model.parameters())
    fewer = (
        drt_tiny(
            vocab_size=64, num_upper_layers=upper, num_retrieval_groups=groups
        ).flops_per_token()
        - config.flops_per_token()
    )
    assert (fewer > 0) == ("0" in reads)
