"""The sliding-window kernels against the reference: error budget, gradients, odd sizes."""

import os

import pytest
import torch

from gcattn import sliding_window_attention
from gcattn.testing import assert_within_budget

pytest.importorskip("triton", reason="needs Triton")

interpreter = pytest.mark.skipif(
    torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") != "1",
    reason="the interpreter lane needs TRITON_INTERPRET=1 and no GPU",
)

CASES = [
    # B, L, P, W, H, G, D: several tiles of queries and of keys, or several rows and heads
    (2, 2, 0, 4, 4, 2, 16),
    (2, 1, 90, 64, 6, 2, 17),
    (2, 3, 50, 7, 2, 1, 24),
    (1, 150, 0, 50, 1, 1, 16),
    (1, 70, 37, 2, 3, 1, 32),
    (1, 40, 100, 100, 2, 1, 20),
    (1, 200, 0, 96, 1, 1, 40),
    (1, 33, 0, 500, 2, 2, 70),
]
REAL_CASES = [
    # B, L, P, W, H, G, D
    (1, 16384, 0, 512, 12, 12, 64),
    (2, 5001, 511, 512, 12, 4, 64),
    (1, 4096, 0, 512, 16, 16, 128),
    (2, 777, 0, 300, 6, 2, 80),
    (1, 1500, 100, 257, 4, 4, 256),
    (3, 1, 511, 512, 12, 12, 64),
    (2, 5, 511, 512, 16, 2, 128),
    (1, 1000, 0, 3, 4, 4, 32),
]


def make(B, L, P, H, G, D, dtype, device="cpu"):
    q = torch.randn(B, L, H, D, device=device).to(dtype)
    k, v = torch.randn(2, B, P + L, G, D, device=device).to(dtype)
    dout = torch.randn(B, L, H, D, device=device).to(dtype)
    documents = torch.randint(-1, 3, (B, P + L), device=device).sort(dim=1).values
    return q, k, v, dout, documents


def run(inputs, impl, *, W, with_documents, dtype=None):
    q, k, v, dout, documents = inputs
    leaves = [x.to(dtype or x.dtype).requires_grad_() for x in (q, k, v)]
    named = {}
    if with_documents:
        named = {
            "query_documents": documents[:, documents.shape[1] - q.shape[1] :],
            "key_documents": documents,
        }
    out = sliding_window_attention(*leaves, window_size=W, impl=impl, **named)
    return [out.detach(), *torch.autograd.grad(out, leaves, dout.to(out.dtype))]


def check(inputs, *, W, with_documents, factor=2.0):
    same = {"W": W, "with_documents": with_documents}
    assert_within_budget(
        run(inputs, "triton", **same),
        run(inputs, "reference", **same),
        run(inputs, "reference", dtype=torch.float64, **same),
        factor=factor,
    )


def poison(device):
    """Fill memory that the kernels will be given with NaN."""
    torch.full((64 * 2**20,), torch.nan, device=device)


@interpreter
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("with_documents", [False, True])
@pytest.mark.parametrize(("B", "L", "P", "W", "H", "G", "D"), CASES)
def test_kernels_stay_within_the_error_of_the_reference(B, L, P, W, H, G, D, with_documents, dtype):
    torch.manual_seed(L + D)
    # numpy's exp2 differs between processors by a unit in the last place
    factor = 2.25 if dtype == torch.float32 else 2.0
    inputs = make(B, L, P, H, G, D, dtype)
    check(inputs, W=W, with_documents=with_documents, factor=factor)


@interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("L", "P", "W"), [(19, 3, 1), (1, 0, 4)])
def test_queries_that_see_one_key_copy_its_value(L, P, W, dtype):
    inputs = make(2, L, P, 4, 2, 16, dtype)
    out, dq, dk, dv = run(inputs, "triton", W=W, with_documents=False)
    _, _, v, dout, _ = inputs
    assert torch.equal(out, v[:, P:].repeat_interleave(2, dim=2))
    # two sums cancel here: what is left is how differently they were rounded
    assert dq.abs().max() < 1e-5 and dk.abs().max() < 1e-5
    torch.testing.assert_close(dv[:, P:], dout.float().unflatten(2, (2, 2)).sum(3).to(dtype))
    assert (dv[:, :P] == 0).all()


@interpreter
def test_nothing_unwritten_is_returned(monkeypatch):
    empty = torch.Tensor.new_empty

    def poisoned(*args, **kwargs):
        x = empty(*args, **kwargs)
        return x.fill_(torch.nan) if x.is_floating_point() else x

    inputs = make(1, 37, 20, 4, 2, 18, torch.float32)
    expected = run(inputs, "triton", W=9, with_documents=True)
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    for found, wanted in zip(
        run(inputs, "triton", W=9, with_documents=True), expected, strict=True
    ):
        assert torch.equal(found, wanted)
        assert found.isfinite().all()


@interpreter
def test_any_strides_are_read_in_place():
    inputs = make(2, 20, 5, 2, 1, 16, torch.float32)
    q, k, v, dout, documents = inputs
    heads_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, dout)]
    every_second = [torch.stack([x, -x], dim=-1).flatten(-2)[..., ::2] for x in heads_first]
    expected = run(inputs, "triton", W=13, with_documents=True)
    for strided in (heads_first, every_second):
        found = run((*strided, documents), "triton", W=13, with_documents=True)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@interpreter
def test_queries_that_see_nothing_give_zero_and_no_gradient():
    q, k, v, dout, _ = make(1, 20, 0, 2, 1, 16, torch.float32)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    mine, others = torch.zeros(1, 20).long(), torch.ones(1, 20).long()
    out = sliding_window_attention(
        *leaves, window_size=5, query_documents=mine, key_documents=others, impl="triton"
    )
    assert (out == 0).all()
    assert all((x == 0).all() for x in torch.autograd.grad(out, leaves, dout))


@interpreter
def test_compiles_as_one_graph():
    inputs = make(1, 20, 4, 2, 1, 16, torch.float32)
    expected = run(inputs, "triton", W=7, with_documents=True)
    q, k, v, dout, documents = inputs
    attend = torch.compile(sliding_window_attention, backend="aot_eager", fullgraph=True)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = attend(
        *leaves,
        window_size=7,
        query_documents=documents[:, 4:],
        key_documents=documents,
        impl="triton",
    )
    found = [out, *torch.autograd.grad(out, leaves, dout)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@interpreter
def test_operators_are_registered_as_torch_expects():
    from gcattn.ops.sliding_window.autograd import backward_operator, forward_operator

    q, k, v, dout, documents = make(1, 9, 2, 2, 1, 16, torch.float32)
    inputs = q, k, v, documents[:, 2:], documents
    torch.library.opcheck(forward_operator, (*inputs, 4))
    torch.library.opcheck(backward_operator, (dout, *inputs, *forward_operator(*inputs, 4), 4))


def test_triton_is_refused_where_it_cannot_run(monkeypatch):
    q, k, v, _, _ = make(1, 5, 0, 2, 1, 16, torch.float64)
    with pytest.raises((RuntimeError, ValueError), match='pass impl="reference"'):
        sliding_window_attention(q, k, v, window_size=2, impl="triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="needs CUDA tensors"):
        sliding_window_attention(q, k, v, window_size=2, impl="triton")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnGPU:
    """Real sizes and bfloat16."""

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
    @pytest.mark.parametrize("with_documents", [False, True])
    @pytest.mark.parametrize(("B", "L", "P", "W", "H", "G", "D"), REAL_CASES)
    def test_kernels_stay_within_the_error_of_the_reference(
        self, B, L, P, W, H, G, D, with_documents, dtype
    ):
        inputs = make(B, L, P, H, G, D, dtype, "cuda")
        poison("cuda")
        # the hardware's exp2 is good to two units in the last place of float32, no better
        factor = 8.0 if dtype == torch.float32 else 2.0
        check(inputs, W=W, with_documents=with_documents, factor=factor)

    def test_two_runs_are_bitwise_equal(self):
        inputs = make(2, 3000, 100, 12, 4, 64, torch.bfloat16, "cuda")
        first, second = (run(inputs, "triton", W=512, with_documents=True) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_a_million_columns_fit_and_agree_with_a_part_of_them(self):
        q, k, v, _, _ = make(1, 2**20, 0, 12, 12, 64, torch.bfloat16, "cuda")
        whole = sliding_window_attention(q, k, v, window_size=512, impl="triton")
        part = sliding_window_attention(
            q[:, -128:], k[:, -639:], v[:, -639:], window_size=512, impl="reference"
        )
        torch.testing.assert_close(whole[:, -128:], part, rtol=0, atol=2e-2)

    def test_compiles_as_one_graph(self):
        inputs = make(1, 700, 0, 4, 2, 64, torch.bfloat16, "cuda")
        q, k, v, dout, documents = inputs
        expected = run(inputs, "auto", W=128, with_documents=True)
        attend = torch.compile(sliding_window_attention, fullgraph=True)
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = attend(*leaves, window_size=128, query_documents=documents, key_documents=documents)
        found = [out, *torch.autograd.grad(out, leaves, dout)]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
