"""The selection kernel against the reference: same choice, same order, noise of the right law."""

import os

import pytest
import torch

from gcattn import chunk_topk
from gcattn.ops.chunk_topk import weights
from gcattn.testing import assert_within_budget

pytest.importorskip("triton", reason="needs Triton")

interpreter = pytest.mark.skipif(
    torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") != "1",
    reason="the interpreter lane needs TRITON_INTERPRET=1 and no GPU",
)

SIZES = [
    # B, C, N, E, K
    (1, 1, 1, 16, 1),
    (2, 1, 150, 37, 5),
    (2, 7, 7, 64, 3),
    (1, 70, 133, 20, 8),
    (3, 20, 5, 33, 9),
    (1, 5, 0, 16, 2),
]
REAL_SIZES = [
    (1, 256, 256, 768, 8),
    (2, 257, 1001, 512, 8),
    (3, 1, 250_001, 512, 8),
    (1, 16, 70_000, 1024, 256),
    (1, 16_384, 16_384, 64, 8),
]


def make(B, C, N, E, dtype=torch.float32, device="cpu"):
    queries = torch.randn(B, C, E, device=device).to(dtype)
    landmarks = torch.randn(B, N, E, device=device).to(dtype)
    num_visible = torch.randint(0, N + 1, (B, C), device=device)
    documents = {
        "query_documents": torch.randint(0, 2, (B, C), device=device),
        "landmark_documents": torch.randint(0, 2, (B, N), device=device).sort(dim=1).values,
    }
    return queries, landmarks, num_visible, documents


def assert_same_choice(found, expected, queries, landmarks):
    """Compare choices by their scores: neighbours may swap only within a rounding.

    Each of the E additions of a score rounds by half an epsilon of what is summed by then, up or
    down, so the error wanders as far as the square root of E.
    """
    assert torch.equal(found.indices >= 0, expected.indices >= 0)
    rows = torch.arange(len(queries), device=queries.device)[:, None, None]
    scores = []
    for indices in (found.indices, expected.indices):
        chosen = landmarks.double()[rows, indices.clamp_min(0)]
        scores.append((queries.double().unsqueeze(2) * chosen).sum(-1) * (indices >= 0))
        for c in range(min(indices.shape[1], 50)):
            used = [n for n in indices[0, c].tolist() if n >= 0]
            assert len(used) == len(set(used))
    if scores[1].numel():
        half = torch.finfo(torch.float32).eps / 2
        rounding = half * queries.shape[-1] ** 0.5 * scores[1].abs().max().item()
        torch.testing.assert_close(*scores, rtol=0, atol=rounding)


@interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("with_documents", [False, True])
@pytest.mark.parametrize(("B", "C", "N", "E", "K"), SIZES)
def test_kernel_chooses_like_the_reference(B, C, N, E, K, with_documents, dtype):
    torch.manual_seed(N)
    queries, landmarks, num_visible, documents = make(B, C, N, E, dtype)
    named = documents if with_documents else {}
    found, expected = (
        chunk_topk(queries, landmarks, num_visible, K, impl=impl, **named)
        for impl in ("triton", "reference")
    )
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.weights, expected.weights)


@interpreter
def test_blocks_change_neither_choice_nor_noise(monkeypatch):
    from gcattn.ops.chunk_topk import triton_select

    queries, landmarks, num_visible, _ = make(2, 9, 100, 16)
    chosen = []
    for limit in (2**24, 2 * 9 * 13):
        monkeypatch.setattr(triton_select, "MAX_KEYS", limit)
        torch.manual_seed(3)
        for noise in ("none", "gumbel"):
            chosen.append(
                chunk_topk(queries, landmarks, num_visible, 4, noise=noise, impl="triton").indices
            )
    assert torch.equal(chosen[0], chosen[2])
    assert torch.equal(chosen[1], chosen[3])
    assert not torch.equal(chosen[0], chosen[1])


@interpreter
@pytest.mark.parametrize(
    ("num_queries", "num_chunks", "top_k", "limit"),
    [
        (4, 150, 2, 20),  # several tiles, not all at once
        pytest.param(17, 300, 2, 20, marks=pytest.mark.slow),
        pytest.param(17, 300, 20, 2**24, marks=pytest.mark.slow),
    ],
)
def test_the_best_of_tiles_lead_to_the_best_of_all(
    num_queries, num_chunks, top_k, limit, monkeypatch
):
    from gcattn.ops.chunk_topk import triton_select

    torch.manual_seed(top_k)
    queries, landmarks, num_visible, documents = make(1, num_queries, num_chunks, 16)
    landmarks[:, 3::7] = landmarks[:, :1]  # equal scores in many tiles
    monkeypatch.setattr(triton_select, "MAX_KEYS", limit)
    for named in ({}, documents, {"noise": "gumbel"}, {"selection": "random"}):
        chosen = []
        for is_short in (True, False):
            monkeypatch.setattr(triton_select, "SHORT_MEMORY", num_chunks * is_short)
            torch.manual_seed(0)
            found = chunk_topk(queries, landmarks, num_visible, top_k, impl="triton", **named)
            chosen.append(found.indices)
        assert torch.equal(*chosen)


@interpreter
def test_equal_scores_go_to_the_earlier_chunk_and_zero_has_one_sign():
    landmarks = torch.zeros(1, 40, 16)
    landmarks[0, ::2] = -0.0
    landmarks[0, 30] = 1.0
    landmarks[0, 31] = -1.0
    queries = torch.ones(1, 1, 16)
    indices, _ = chunk_topk(queries, landmarks, torch.full((1, 1), 40), 40, impl="triton")
    assert indices.flatten().tolist() == [30, *range(30), *range(32, 40), 31]


@interpreter
def test_mixed_dtypes_and_strides_are_read_in_place():
    queries, landmarks, num_visible, _ = make(2, 5, 30, 24)
    wide = torch.stack([landmarks, -landmarks], dim=2).flatten(1, 2)[:, ::2]
    half = wide.half()
    assert not wide.is_contiguous()
    for other in (wide, half):
        found, expected = (
            chunk_topk(queries, other, num_visible, 3, impl=impl).indices
            for impl in ("triton", "reference")
        )
        assert torch.equal(found, expected)


@interpreter
@pytest.mark.slow
def test_gumbel_noise_samples_the_softmax_of_the_scores():
    queries = torch.zeros(1, 20_000, 16)
    queries[..., 0] = 4.0
    landmarks = torch.zeros(1, 3, 16)
    landmarks[0, :, 0] = torch.arange(3)
    visible = torch.full((1, 20_000), 3)
    torch.manual_seed(0)
    indices, _ = chunk_topk(queries, landmarks, visible, 1, noise="gumbel", impl="triton")
    found = torch.bincount(indices.flatten(), minlength=3) / 20_000
    torch.testing.assert_close(found, torch.arange(3.0).softmax(0), rtol=0, atol=0.015)


@interpreter
def test_noise_follows_the_seed():
    queries, landmarks, _, _ = make(2, 30, 50, 16)
    visible = torch.full((2, 30), 50)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(
            chunk_topk(queries, landmarks, visible, 3, selection="random", impl="triton").indices
        )
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    # every chunk is as likely as any other: 180 draws of 50
    assert torch.bincount(draws[0].flatten(), minlength=50).max() <= 14


@interpreter
def test_compiles_as_one_graph():
    queries, landmarks, num_visible, documents = make(1, 6, 20, 16)
    expected = chunk_topk(queries, landmarks, num_visible, 3, impl="triton", **documents)
    choose = torch.compile(chunk_topk, backend="aot_eager", fullgraph=True)
    leaf = queries.clone().requires_grad_()
    found = choose(leaf, landmarks, num_visible, 3, impl="triton", **documents)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.weights, expected.weights)
    found.weights[..., 0].sum().backward()
    assert leaf.grad.abs().sum() > 0
    noisy = choose(leaf, landmarks, num_visible, 3, noise="gumbel", impl="triton", **documents)
    assert torch.equal(noisy.indices >= 0, expected.indices >= 0)


@interpreter
def test_operator_is_registered_as_torch_expects():
    from gcattn.ops.chunk_topk.triton_operator import triton_select_chunks

    queries, landmarks, num_visible, documents = make(1, 4, 9, 16)
    seed = torch.tensor([7])
    arguments = (queries, landmarks, num_visible, *documents.values(), seed, 3, True)
    torch.library.opcheck(triton_select_chunks, arguments)


def test_both_ways_to_weigh_agree(monkeypatch):
    results = []
    for limit in (8192, 0):
        monkeypatch.setattr(weights, "DENSE_LIMIT", limit)
        torch.manual_seed(0)
        queries, landmarks, num_visible, _ = make(2, 9, 20, 7, torch.float64)
        leaves = queries.requires_grad_(), landmarks.requires_grad_()
        weighed = chunk_topk(*leaves, num_visible, 3).weights
        results.append([weighed, *torch.autograd.grad((weighed**2).sum(), leaves)])
    for dense, read in zip(*results, strict=True):
        torch.testing.assert_close(dense, read)


def test_triton_is_refused_where_it_cannot_run(monkeypatch):
    queries, landmarks, num_visible, _ = make(1, 3, 4, 16, torch.float64)
    with pytest.raises((RuntimeError, ValueError), match='pass impl="reference"'):
        chunk_topk(queries, landmarks, num_visible, 2, impl="triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="needs CUDA tensors"):
        chunk_topk(queries, landmarks, num_visible, 2, impl="triton")


def test_bad_input_is_refused():
    queries, landmarks, num_visible, documents = make(2, 3, 4, 16)
    with pytest.raises(ValueError, match="num_visible must have shape"):
        chunk_topk(queries, landmarks, num_visible[:, :2], 2)
    with pytest.raises(ValueError, match="must be given together"):
        chunk_topk(queries, landmarks, num_visible, 2, query_documents=documents["query_documents"])
    with pytest.raises(ValueError, match='must be "learned" or "random"'):
        chunk_topk(queries, landmarks, num_visible, 2, selection="best")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnGPU:
    """Real sizes and bfloat16."""

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
    @pytest.mark.parametrize("with_documents", [False, True])
    @pytest.mark.parametrize(("B", "C", "N", "E", "K"), REAL_SIZES)
    def test_kernel_chooses_like_the_reference(self, B, C, N, E, K, with_documents, dtype):
        queries, landmarks, num_visible, documents = make(B, C, N, E, dtype, "cuda")
        named = documents if with_documents else {}
        torch.full((64 * 2**20,), torch.nan, device="cuda")
        found, expected = (
            chunk_topk(queries, landmarks, num_visible, K, impl=impl, **named)
            for impl in ("triton", "reference")
        )
        assert_same_choice(found, expected, queries, landmarks)

    def test_choice_and_gradients_are_bitwise_the_same_twice(self):
        queries, landmarks, num_visible, documents = make(2, 256, 256, 768, torch.bfloat16, "cuda")
        leaves = queries.requires_grad_(), landmarks.requires_grad_()
        results = []
        for _ in range(2):
            torch.manual_seed(0)
            indices, weights = chunk_topk(*leaves, num_visible, 8, noise="gumbel", **documents)
            ranks = torch.arange(8, device="cuda")
            results.append(
                [indices, weights, *torch.autograd.grad((weights * ranks).sum(), leaves)]
            )
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

    def test_gradients_stay_within_the_error_of_gathered_landmarks(self, monkeypatch):
        queries, landmarks, num_visible, _ = make(1, 256, 256, 512, torch.bfloat16, "cuda")
        indices = chunk_topk(queries, landmarks, num_visible, 8).indices
        ranks = torch.arange(8, device="cuda")
        results = []
        for dtype, limit in ((None, 8192), (None, 0), (torch.float64, 0)):
            monkeypatch.setattr(weights, "DENSE_LIMIT", limit)
            leaves = [x.to(dtype or x.dtype).requires_grad_() for x in (queries, landmarks)]
            weighed = weights.weigh_chunks(*leaves, indices)
            gradients = torch.autograd.grad((weighed * ranks).sum(), leaves)
            results.append([weighed.detach(), *gradients])
        assert_within_budget(*results)

    def test_selection_does_not_wait_for_the_gpu(self):
        queries, landmarks, num_visible, documents = make(1, 64, 64, 128, torch.bfloat16, "cuda")
        named = {"noise": "gumbel", **documents}
        chunk_topk(queries, landmarks, num_visible, 8, **named)
        torch.cuda.set_sync_debug_mode("error")
        try:
            chunk_topk(queries, landmarks, num_visible, 8, **named)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_sixteen_million_landmarks_need_little_beside_them(self):
        queries = torch.randn(1, 1, 128, device="cuda", dtype=torch.bfloat16)
        landmarks = torch.randn(1, 2**24 + 5, 128, device="cuda", dtype=torch.bfloat16)
        visible = torch.full((1, 1), 2**24 + 5, device="cuda")
        landmarks[0, 2**24 + 3] = queries[0, 0] * 10
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        indices, _ = chunk_topk(queries, landmarks, visible, 8)
        assert indices[0, 0, 0].item() == 2**24 + 3
        assert torch.cuda.max_memory_allocated() - before < 2**30

    def test_compiles_as_one_graph(self):
        queries, landmarks, num_visible, documents = make(1, 64, 64, 128, torch.bfloat16, "cuda")
        expected = chunk_topk(queries, landmarks, num_visible, 3, **documents)
        found = torch.compile(chunk_topk, fullgraph=True)(
            queries, landmarks, num_visible, 3, **documents
        )
        assert torch.equal(found.indices, expected.indices)
        torch.testing.assert_close(found.weights, expected.weights)
