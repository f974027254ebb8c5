"""Landmark Attention: its definition, and the kernels against the reference."""

import os

import pytest
import torch

from gcattn.ops.landmark_attention import landmark_attention
from gcattn.testing import assert_within_budget

EXACT = {"rtol": 0, "atol": 1e-10}

CASES = [
    # B, C, S, H, G, D
    (1, 1, 5, 1, 1, 16),
    (2, 3, 5, 2, 1, 8),
    (1, 3, 16, 2, 2, 20),
    (2, 3, 17, 3, 1, 16),
    (1, 5, 3, 2, 1, 16),
]
REAL_CASES = [(1, 260, 64, 12, 12, 64), (2, 33, 64, 8, 2, 128), (2, 40, 16, 4, 4, 64)]


def make(B, C, S, H, G, D, dtype=torch.float64, device="cpu"):
    torch.manual_seed(0)
    q, dout = torch.randn(2, B, C * S, H, D, device=device).to(dtype)
    k, v = torch.randn(2, B, C * S, G, D, device=device).to(dtype)
    return q, k, v, dout


def by_definition(q, k, v, S):
    """Weigh every token of one row and head by the two softmaxes of the paper, in loops."""
    L, D = q.shape
    scores = q @ k.T / D**0.5
    out = torch.zeros_like(v)
    for i in range(L):
        c = i // S
        own = [j for j in range(c * S, i + 1) if j % S != S - 1]
        landmarks = [n * S + S - 1 for n in range(c)]
        outer = scores[i, own + landmarks].softmax(0)
        out[i] = outer[: len(own)] @ v[own]
        for weight, landmark in zip(outer[len(own) :], landmarks, strict=True):
            tokens = list(range(landmark - S + 1, landmark))
            out[i] += weight * (scores[i, tokens].softmax(0) @ v[tokens])
    return out


@pytest.mark.parametrize("case", [*CASES, (1, 4, 2, 2, 1, 8)], ids=str)
def test_the_reference_is_the_definition(case):
    q, k, v, _ = make(*case)
    out = landmark_attention(q, k, v, chunk_size=case[2])
    for b in range(case[0]):
        for h in range(case[3]):
            g = h // (case[3] // case[4])
            expected = by_definition(q[b, :, h], k[b, :, g], v[b, :, g], case[2])
            torch.testing.assert_close(out[b, :, h], expected, **EXACT)


def test_gradients_are_those_of_finite_differences():
    q, k, v, _ = make(1, 3, 4, 2, 1, 3)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    torch.autograd.gradcheck(lambda *x: landmark_attention(*x, chunk_size=4), leaves)


def test_later_columns_change_nothing():
    q, k, v, _ = make(1, 4, 6, 2, 2, 8)
    before = landmark_attention(q, k, v, chunk_size=6)
    for x in (q, k, v):
        x[:, 13:] = 7.0
    torch.testing.assert_close(
        landmark_attention(q, k, v, chunk_size=6)[:, :13], before[:, :13], **EXACT
    )


def test_values_of_landmarks_are_never_read():
    q, k, v, _ = make(1, 4, 6, 2, 2, 8)
    before = landmark_attention(q, k, v, chunk_size=6)
    v[:, 5::6] = torch.nan
    # NaN times zero is NaN, so the landmarks' values are replaced by numbers that would show
    v = v.nan_to_num(1e6)
    torch.testing.assert_close(landmark_attention(q, k, v, chunk_size=6), before, **EXACT)


def test_cached_columns_equal_the_full_row():
    q, k, v, _ = make(2, 5, 4, 2, 1, 8)
    full = landmark_attention(q, k, v, chunk_size=4)
    marks = (torch.arange(20) % 4 == 3).expand(2, -1)
    for start, stop in ((0, 3), (3, 4), (4, 11), (11, 20)):
        part = landmark_attention(
            q[:, start:stop], k[:, :stop], v[:, :stop], key_is_landmark=marks[:, :stop]
        )
        torch.testing.assert_close(part, full[:, start:stop], **EXACT)


def test_documents_are_read_apart():
    q, k, v, _ = make(1, 4, 5, 2, 2, 8)
    marks = (torch.arange(20) % 5 == 4).expand(1, -1)
    documents = (torch.arange(20) >= 10).long().expand(1, -1)
    packed = landmark_attention(q, k, v, key_is_landmark=marks, key_documents=documents)
    for part in (slice(0, 10), slice(10, 20)):
        alone = landmark_attention(q[:, part], k[:, part], v[:, part], chunk_size=5)
        torch.testing.assert_close(packed[:, part], alone, **EXACT)


def test_all_blocks_are_enough_blocks_and_one_is_not():
    q, k, v, _ = make(1, 6, 5, 2, 2, 8)
    full = landmark_attention(q, k, v, chunk_size=5)
    for top_k in (5, 30, 100):
        torch.testing.assert_close(
            landmark_attention(q, k, v, chunk_size=5, top_k=top_k), full, **EXACT
        )
    one = landmark_attention(q, k, v, chunk_size=5, top_k=1)
    # with at most one block before there is nothing to leave out
    torch.testing.assert_close(one[:, :10], full[:, :10], **EXACT)
    assert (one[:, 10:] - full[:, 10:]).abs().max() > 1e-3


def test_extreme_scores_stay_finite():
    q, k, v, dout = make(1, 4, 5, 2, 2, 8)
    leaves = [(60 * q).requires_grad_(), (60 * k).requires_grad_(), v.requires_grad_()]
    out = landmark_attention(*leaves, chunk_size=5)
    assert out.isfinite().all()
    assert all(x.isfinite().all() for x in torch.autograd.grad(out, leaves, dout))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "either chunk_size or key_is_landmark"),
        ({"chunk_size": 1}, "chunk_size must be at least 2"),
        ({"chunk_size": 5, "top_k": 0}, "top_k must be at least 1"),
        ({"key_is_landmark": torch.zeros(1, 3, dtype=torch.bool)}, "key_is_landmark must have"),
        ({"chunk_size": 5, "impl": "fast"}, "impl must be"),
        ({"chunk_size": 3, "impl": "triton"}, "divides L"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    q, k, v, _ = make(1, 2, 5, 2, 2, 8, torch.float32)
    with pytest.raises(ValueError, match=message):
        landmark_attention(q, k, v, **changes)


def run(inputs, S, impl, dtype=None):
    *leaves, dout = inputs
    leaves = [x.to(dtype or x.dtype).requires_grad_() for x in leaves]
    out = landmark_attention(*leaves, chunk_size=S, impl=impl)
    return [out.detach(), *torch.autograd.grad(out, leaves, dout.to(out.dtype))]


def check(case, dtype, device):
    inputs = make(*case, dtype, device)
    S = case[2]
    truth = run(inputs, S, "reference", torch.float64)
    # a GPU's exponentials are off by two roundings, its products summed up one by one: about 1.5
    # times the reference's error
    factor = 3.0 if dtype == torch.float32 else 2.0
    fast, plain = (run(inputs, S, impl) for impl in ("triton", "reference"))
    assert_within_budget(fast, plain, truth, factor=factor)


@pytest.mark.skipif(
    torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") != "1",
    reason="the interpreter lane needs TRITON_INTERPRET=1 and no GPU",
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_match_the_reference_in_the_interpreter(case):
    pytest.importorskip("triton", reason="needs Triton")
    check(case, torch.float32, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", REAL_CASES[1:], ids=str)
def test_kernels_match_the_reference_on_a_gpu(case, dtype):
    check(case, dtype, "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gradients_are_the_same_bits_twice():
    inputs = make(*REAL_CASES[0], torch.bfloat16, "cuda")
    once, again = (run(inputs, 64, "triton") for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(once, again, strict=True))
