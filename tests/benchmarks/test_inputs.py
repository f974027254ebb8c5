"""The random retrieval that operators are timed with is a possible one."""

import torch

from benchmarks.inputs import causal_retrieval, random_inputs, retrieval_weights
from benchmarks.shapes import OperatorShape

CPU = torch.device("cpu")


def test_retrieved_chunks_are_past_distinct_and_as_many_as_there_are():
    K, C = 4, 37
    indices = causal_retrieval(3, C, K, seed=0)
    assert indices.shape == (3, C, K)
    for row in indices:
        for c, chosen in enumerate(row.tolist()):
            filled = [n for n in chosen if n >= 0]
            assert len(filled) == min(K, c) == len(set(filled))
            assert all(n < c for n in filled)
    # the first chunk retrieves nothing
    assert (indices[:, 0] == -1).all()


def test_more_slots_than_chunks_stay_empty():
    indices = causal_retrieval(1, 3, 8, seed=0)
    assert (indices >= 0).sum(-1).tolist() == [[0, 1, 2]]


def test_every_past_chunk_is_drawn_equally_often():
    K, C = 3, 10
    last = causal_retrieval(4000, C, K, seed=1)[:, -1]
    counts = torch.bincount(last.flatten(), minlength=C - 1)
    expected = 4000 * K / (C - 1)
    assert counts.shape == (C - 1,)
    assert (counts - expected).abs().max() < 0.12 * expected


def test_weights_are_a_softmax_over_filled_slots():
    indices = causal_retrieval(2, 9, 4, seed=0)
    weights = retrieval_weights(indices, torch.randn(indices.shape))
    assert (weights[indices < 0] == 0).all()
    torch.testing.assert_close(weights.sum(-1)[:, 1:], torch.ones(2, 8))
    assert (weights[:, 0] == 0).all()


def test_seed_fixes_the_inputs_and_another_one_changes_them():
    shape = OperatorShape(
        batch=2, length=24, heads=4, kv_heads=2, head_dim=6, top_k=3, chunk_size=8, dtype="float32"
    )
    first, again, other = (random_inputs(shape, CPU, seed) for seed in (0, 0, 1))
    assert first.q.shape == (2, 3, 8, 4, 6) and first.k.shape == (2, 3, 8, 2, 6)
    for name in ("q", "k", "v", "chunk_indices", "chunk_weights", "dout"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.q, other.q)
