"""Chunks that stand in order are read without a gather: the same as by their indices."""

import pytest
import torch

from gcattn import grouped_cross_attention
from gcattn.ops.grouped_cross_attention import read_in_order
from gcattn.testing import cross_attention_inputs

CASES = [{}, {"H": 4, "G": 1}, {"H": 6, "G": 2, "D": 3}, {"S": 1}, {"B": 1, "S": 7, "N": 1}]


@pytest.mark.parametrize("mixing", ["separate", "joint"])
@pytest.mark.parametrize("sink_logit", [None, 0.0, 1.5])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_chunks_in_order_are_read_as_by_their_indices(case, sink_logit, mixing):
    inputs = cross_attention_inputs(**({"N": 5} | case), K=1, C=1, M=1)
    B, N = inputs.chunk_lengths.shape
    # the last slot is empty: its chunk holds what was retrieved before, or nothing
    indices = torch.arange(N).expand(B, 1, N).clone()
    weights = torch.rand(B, 1, N, dtype=inputs.q.dtype)
    indices[:, :, -1], weights[:, :, -1] = -1, 0
    lengths = inputs.chunk_lengths.clamp_min(1)
    lengths[0, -1] = 0
    expected = grouped_cross_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        indices,
        weights,
        chunk_lengths=lengths,
        sink_logit=sink_logit,
        mixing=mixing,
    )
    side_by_side = inputs.k.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    for keys in (inputs.k, side_by_side):
        found = read_in_order(
            inputs.q,
            keys,
            inputs.v,
            weights,
            lengths,
            sink_logit=sink_logit,
            is_joint=mixing == "joint",
        )
        torch.testing.assert_close(found, expected)
