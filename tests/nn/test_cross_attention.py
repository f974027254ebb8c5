"""Claims about the module around the operator."""

import pytest
import torch

from gcattn.memory.chunk_source import RetrievedChunks
from gcattn.nn.cross_attention import GroupedCrossAttention
from gcattn.ops import grouped_cross_attention
from gcattn.testing import random_config

HEADS, KV_HEADS, D = 8, 4, 6
HALVES = [(slice(None, HEADS // 2), slice(None, KV_HEADS // 2), "joint")]
HALVES += [(slice(HEADS // 2, None), slice(KV_HEADS // 2, None), "separate")]


def module(mixing):
    sizes = {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": D}
    return GroupedCrossAttention(random_config(0, chunk_mixing=mixing, **sizes)).double()


@pytest.fixture
def retrieved():
    torch.manual_seed(0)
    keys, values = torch.randn(2, 2, 7, 5, KV_HEADS, D, dtype=torch.double)
    indices = torch.tensor([[[0, 3, -1]], [[6, 1, 2]]])
    weights = torch.rand(2, 1, 3, dtype=torch.double)
    return RetrievedChunks(keys, values, torch.full((2, 7), 4), indices, weights)


def test_both_reads_jointly_with_the_first_half_of_the_heads_and_separately_with_the_other(
    retrieved,
):
    q = torch.randn(2, 1, 5, HEADS, D, dtype=torch.double)
    both = module("both")
    expected = [
        grouped_cross_attention(
            q[..., own, :],
            retrieved.keys[..., theirs, :],
            retrieved.values[..., theirs, :],
            retrieved.indices,
            retrieved.weights,
            chunk_lengths=retrieved.lengths,
            sink_logit=both.sink_logit,
            mixing=mixing,
        )
        for own, theirs, mixing in HALVES
    ]
    torch.testing.assert_close(both._read(q, retrieved), torch.cat(expected, dim=-2))


def test_both_has_the_weights_of_either():
    names = {name: x.shape for name, x in module("both").named_parameters()}
    assert names == {name: x.shape for name, x in module("separate").named_parameters()}


def test_both_needs_heads_that_can_be_halved():
    with pytest.raises(ValueError, match="num_key_value_heads must be even, got 3"):
        random_config(0, chunk_mixing="both", num_attention_heads=3, num_key_value_heads=3)
