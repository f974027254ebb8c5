"""A memory that lies on several processes is chosen from and read as one memory, bit for bit."""

import itertools
import sys

import pytest
import torch

from gcattn import chunk_topk
from gcattn.memory.sharded import ShardedChunks, Share
from gcattn.ops.chunk_topk.candidates import holder_bounds
from gcattn.ops.chunk_topk.weights import weigh_read
from processes import run_together

E, S, G, D = 12, 5, 2, 4
BLOCK = 4


def memory(num_chunks, seed, dtype):
    """Draw chunks, many of which are equal, some of which may not be chosen."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(num_chunks // 3 + 1, E, generator=generator, dtype=torch.float64)
    landmarks = kinds[torch.randint(len(kinds), (num_chunks,), generator=generator)]
    return Share(
        landmarks.to(dtype),
        torch.randn(num_chunks, 2, S, G, D, generator=generator, dtype=torch.float64).to(dtype),
        torch.randint(1, S, (num_chunks,), generator=generator),
        torch.rand(num_chunks, generator=generator) < 0.8,
    )


def queries(seed, dtype, count=7):
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(count, E, generator=generator, dtype=torch.float64).to(dtype)


def ask(rank, whole, asked, top_k, bounds):
    """Choose and read in one of several processes."""
    own = Share(*(x[bounds[rank] : bounds[rank + 1]] for x in whole))
    chunks = ShardedChunks(own, bounds)
    best = chunks.best(asked, top_k)
    weights = weigh_read(asked[None], chunks.landmarks_at(best)[None], (best >= 0)[None])[0]
    numbers = best[best >= 0].unique()
    return best, weights, numbers, *chunks.gather(numbers)


def ask_all(rank, cases):
    return [ask(rank, *case) for case in cases]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_several_processes_choose_and_read_what_one_does_ties_included(count, monkeypatch):
    monkeypatch.setattr(sys.modules["gcattn.ops.chunk_topk.reference"], "SCORE_BLOCK", BLOCK)
    cases = [
        (memory(n, seed, dtype), queries(seed, dtype), top_k, holder_bounds(n, count, BLOCK))
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
        for seed, (n, top_k) in enumerate([(45, 6), (9, 4), (3, 5), (0, 3)])
    ]
    for found in run_together(count, ask_all, cases):
        for (whole, asked, top_k, _), (best, weights, numbers, *read) in zip(
            cases, found, strict=True
        ):
            visible = torch.full((1, len(asked)), len(whole.landmarks))
            expected = chunk_topk(
                asked[None],
                whole.landmarks[None],
                visible,
                top_k,
                query_documents=torch.ones_like(visible),
                landmark_documents=whole.may_be_chosen[None].long(),
            )
            assert torch.equal(best, expected.indices[0])
            torch.testing.assert_close(weights, expected.weights[0])
            chosen = whole.chunks[numbers]
            for x, y in zip(
                read, (chosen[:, 0], chosen[:, 1], whole.lengths[numbers]), strict=True
            ):
                assert torch.equal(x, y)


def test_weights_are_those_of_one_process_bitwise(monkeypatch):
    monkeypatch.setattr(sys.modules["gcattn.ops.chunk_topk.reference"], "SCORE_BLOCK", BLOCK)
    monkeypatch.setattr(sys.modules["gcattn.ops.chunk_topk.weights"], "DENSE_LIMIT", 0)
    whole, asked = memory(45, 0, torch.float32), queries(0, torch.float32)
    visible = torch.full((1, len(asked)), 45)
    every = whole._replace(may_be_chosen=torch.ones(45, dtype=torch.bool))
    expected = chunk_topk(asked[None], whole.landmarks[None], visible, 6)
    for _, weights, *_ in run_together(3, ask, every, asked, 6, holder_bounds(45, 3, BLOCK)):
        assert torch.equal(weights, expected.weights[0])


@pytest.mark.parametrize(("num_chunks", "count"), [(0, 3), (5, 4), (64, 3), (1000, 7)])
def test_shares_begin_at_blocks_and_are_as_equal_as_can_be(num_chunks, count):
    bounds = holder_bounds(num_chunks, count, BLOCK)
    assert bounds[0] == 0 and bounds[-1] == num_chunks and bounds == sorted(bounds)
    assert all(bound % BLOCK == 0 or bound == num_chunks for bound in bounds)
    sizes = [-(-(b - a) // BLOCK) for a, b in itertools.pairwise(bounds)]
    assert max(sizes) - min(sizes) <= 1


def refuse(rank, bounds):
    share = memory(4, 0, torch.float32)
    with pytest.raises(ValueError) as refused:
        ShardedChunks(share, bounds)
    return str(refused.value)


def test_bounds_that_do_not_fit_are_refused():
    assert "3 ascending numbers from 0 for 2 processes" in run_together(2, refuse, [0, 4])[0]
    assert "must hold chunks 0 to 5, got 4" in run_together(2, refuse, [0, 5, 10])[0]
