"""Choosing chunks: limits, order, weights, noise, gradients."""

import sys

import pytest
import torch

from gcattn import chunk_topk
from gcattn.ops.chunk_topk.running_best import nothing_yet, with_block


def make(B=2, C=7, N=11, E=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(B, C, E, generator=generator, dtype=torch.float64)
    landmarks = torch.randn(B, N, E, generator=generator, dtype=torch.float64)
    num_visible = torch.arange(C).expand(B, C)
    return queries, landmarks, num_visible


def test_the_best_visible_chunks_are_chosen_best_first():
    queries, landmarks, num_visible = make()
    indices, weights = chunk_topk(queries, landmarks, num_visible, 3)
    scores = torch.einsum("bce,bne->bcn", queries, landmarks) / 6**0.5
    for b in range(2):
        for c in range(7):
            best = scores[b, c, :c].sort(descending=True).indices[:3]
            assert indices[b, c, : len(best)].tolist() == best.tolist()
            assert (indices[b, c, len(best) :] == -1).all()
            torch.testing.assert_close(weights[b, c, : len(best)], scores[b, c, best].softmax(0))
            assert (weights[b, c, len(best) :] == 0).all()


def test_scoring_in_blocks_changes_nothing(monkeypatch):
    whole = chunk_topk(*make(), 4)
    monkeypatch.setattr(sys.modules["gcattn.ops.chunk_topk.reference"], "SCORE_BLOCK", 3)
    in_blocks = chunk_topk(*make(), 4)
    assert torch.equal(whole.indices, in_blocks.indices)
    torch.testing.assert_close(whole.weights, in_blocks.weights)


def test_queries_compete_alone_as_they_do_together():
    generator = torch.Generator().manual_seed(3)
    best = nothing_yet(torch.zeros(2, 5, 6), 3)
    rows = [nothing_yet(torch.zeros(1, 1, 6), 3) for _ in range(10)]
    for start in range(0, 40, 8):
        scores = torch.randint(9, (2, 5, 8), generator=generator) - start / 2
        best = with_block(best, scores.float(), start)
        alone = scores.float().reshape(10, 1, 1, 8)
        rows = [with_block(row, x, start) for row, x in zip(rows, alone, strict=True)]
    assert torch.equal(best.indices, torch.cat([x.indices for x in rows]).view(2, 5, 3))
    assert torch.equal(best.scores, torch.cat([x.scores for x in rows]).view(2, 5, 3))


@pytest.mark.parametrize("N", [0, 11])
def test_nobody_asks(N):
    queries, landmarks, num_visible = make(C=0, N=N)
    indices, weights = chunk_topk(queries, landmarks, num_visible, 3)
    assert indices.shape == weights.shape == (2, 0, 3)
    assert (indices.dtype, weights.dtype) == (torch.int64, torch.float64)


def test_equal_scores_go_to_the_earlier_chunk():
    queries, landmarks, _ = make(C=1)
    same = landmarks[:, :1].expand(-1, 11, -1)
    indices, _ = chunk_topk(queries, same, torch.full((2, 1), 11), 4)
    assert indices[:, 0].tolist() == [[0, 1, 2, 3]] * 2


def test_other_documents_are_invisible():
    queries, landmarks, _ = make()
    landmark_documents = (torch.arange(11) // 4).expand(2, 11)
    query_documents = torch.tensor([0, 0, 1, 1, 2, 2, 3]).expand(2, 7)
    indices, weights = chunk_topk(
        queries,
        landmarks,
        torch.full((2, 7), 11),
        3,
        query_documents=query_documents,
        landmark_documents=landmark_documents,
    )
    read = landmark_documents[0][indices.clamp_min(0)]
    assert ((read == query_documents.unsqueeze(-1)) | (indices < 0)).all()
    assert (indices[:, 6] == -1).all()
    assert (weights[:, 6] == 0).all()


def test_noise_changes_the_choice_but_not_the_weights_of_the_chosen():
    queries, landmarks, _ = make(C=1)
    visible = torch.full((2, 1), 11)
    scores = torch.einsum("bce,bne->bcn", queries, landmarks) / 6**0.5
    torch.manual_seed(0)
    choices = [chunk_topk(queries, landmarks, visible, 3, noise="gumbel") for _ in range(20)]
    assert len({tuple(c.indices[0, 0].tolist()) for c in choices}) > 5
    for indices, weights in choices:
        torch.testing.assert_close(weights, scores.gather(-1, indices).softmax(-1))


def test_gumbel_noise_samples_the_softmax_of_the_scores():
    # the Gumbel-max property: the top-1 choice follows the softmax
    queries = torch.zeros(1, 20_000, 2).double()
    queries[..., 0] = 2**0.5
    landmarks = torch.tensor([[[0.0, 0], [1, 0], [2, 0]]]).double()
    torch.manual_seed(0)
    indices, _ = chunk_topk(queries, landmarks, torch.full((1, 20_000), 3), 1, noise="gumbel")
    found = torch.bincount(indices.flatten(), minlength=3) / 20_000
    expected = torch.tensor([0.0, 1, 2]).softmax(0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.015)


def test_random_selection_ignores_the_scores_and_reaches_every_visible_chunk():
    queries, landmarks, _ = make(C=1, B=1)
    torch.manual_seed(0)
    drawn = [
        chunk_topk(queries * 100, landmarks, torch.full((1, 1), 5), 2, selection="random").indices
        for _ in range(60)
    ]
    assert torch.cat(drawn).unique().tolist() == [0, 1, 2, 3, 4]


def test_gradients_flow_through_the_scores_of_the_chosen_only():
    queries, landmarks, num_visible = make()
    queries.requires_grad_()
    landmarks.requires_grad_()
    indices, weights = chunk_topk(queries, landmarks, num_visible, 2)
    (weights * torch.arange(1, 3)).sum().backward()
    chosen = {(b, n) for b in range(2) for n in indices[b].flatten().tolist() if n >= 0}
    for b in range(2):
        for n in range(11):
            if (b, n) not in chosen:
                assert (landmarks.grad[b, n] == 0).all()
    assert landmarks.grad.abs().sum() > 0
    assert (queries.grad[:, 0] == 0).all()
    assert torch.autograd.gradcheck(
        lambda q, x: chunk_topk(q, x, num_visible, 2).weights, (queries, landmarks)
    )


def test_bfloat16_scores_are_compared_in_float32():
    queries = torch.full((1, 1, 4), 1.0, dtype=torch.bfloat16)
    landmarks = torch.full((1, 3, 4), 16.0, dtype=torch.bfloat16)
    landmarks[0, 2, 0] = 16.125  # the sums differ by less than bfloat16 resolves at 64
    indices, weights = chunk_topk(queries, landmarks, torch.full((1, 1), 3), 1)
    assert indices.item() == 2
    assert weights.dtype == torch.float32


def test_bad_input_is_refused():
    queries, landmarks, num_visible = make()
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        chunk_topk(queries, landmarks, num_visible, 0)
    with pytest.raises(ValueError, match="must agree in B and E"):
        chunk_topk(queries, landmarks[..., :3], num_visible, 2)
