"""What tests are made of: random configurations, and the error budget."""

import pytest
import torch

from gcattn.testing import assert_within_budget, random_config

TRUTH = torch.linspace(1, 2, 50, dtype=torch.float64)
PLAIN = (TRUTH + 1e-3).float()


def test_twice_the_error_of_the_reference_passes_and_more_does_not():
    assert_within_budget((TRUTH - 1.9e-3).float(), PLAIN, TRUTH)
    with pytest.raises(AssertionError, match="result 0: largest error"):
        assert_within_budget((TRUTH - 2.1e-3).float(), PLAIN, TRUTH)
    assert_within_budget((TRUTH - 3.9e-3).float(), PLAIN, TRUTH, factor=4)


def test_one_bad_value_of_the_reference_does_not_excuse_many():
    plain = PLAIN.clone()
    plain[0] += 0.1
    with pytest.raises(AssertionError, match="root mean square error"):
        assert_within_budget((TRUTH - 0.05).float(), plain, TRUTH)


def test_one_value_far_off_fails():
    fast = PLAIN.clone()
    fast[7] += 0.01
    with pytest.raises(AssertionError, match="result 1: largest error"):
        assert_within_budget([PLAIN, fast], [PLAIN, PLAIN], [TRUTH, TRUTH])


def test_an_exact_reference_leaves_one_rounding():
    exact = TRUTH.float().double()
    assert_within_budget(exact.float() * (1 + 5e-8), exact.float(), exact)
    with pytest.raises(AssertionError):
        assert_within_budget(exact.float() * (1 + 1e-6), exact.float(), exact)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_a_number_fails(value):
    fast = PLAIN.clone()
    fast[3] = value
    with pytest.raises(AssertionError):
        assert_within_budget(fast, PLAIN, TRUTH)
    with pytest.raises(AssertionError):
        assert_within_budget(PLAIN, fast * torch.nan, TRUTH)


def test_other_shapes_dtypes_and_counts_fail():
    with pytest.raises(AssertionError, match="shapes"):
        assert_within_budget(PLAIN[1:], PLAIN, TRUTH)
    with pytest.raises(AssertionError, match="is not"):
        assert_within_budget(PLAIN.half(), PLAIN, TRUTH)
    with pytest.raises(ValueError, match="zip"):
        assert_within_budget([PLAIN], [PLAIN, PLAIN], [TRUTH, TRUTH])


@pytest.mark.parametrize("seed", [0, 2, 4])
@pytest.mark.parametrize(
    "option",
    [
        "retrieval_serves",
        "softmax_off_by_one",
        "chunk_mixing",
        "residual_wiring",
        "cross_attention_init",
        "landmark_pooling",
        "cross_attention_interval",
        "num_key_value_heads",
    ],
)
def test_two_seeds_hold_every_option_in_both_values(seed, option):
    values = {getattr(random_config(s), option) for s in (seed, seed + 1)}
    assert len(values) == 2


def test_the_first_two_seeds_hold_a_sink_and_an_overlap():
    configs = [random_config(seed) for seed in (0, 1)]
    assert any(config.softmax_off_by_one and config.sink_logit for config in configs)
    assert any(config.landmark_overlap for config in configs)
