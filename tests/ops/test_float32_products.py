"""Products of 16-bit values in float32, where a CPU has none of its own."""

import pytest
import torch
from torch import nn

from gcattn.nn.projections import project
from gcattn.ops import implementation
from gcattn.ops.implementation import computes_wide, multiplies_slowly
from gcattn.ops.sliding_window import sliding_window_attention

HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(params=[True, False], ids=["slow", "fast"])
def slow(request, monkeypatch):
    """Say that this CPU has no products of 16 bits, or that it has."""
    monkeypatch.setattr(implementation, "SLOW_DTYPES", HALVES if request.param else [])
    return request.param


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_many_rows_are_rounded_once(slow, dtype):
    torch.manual_seed(0)
    maps = [nn.Linear(64, n, bias=False, dtype=dtype) for n in (8, 5)]
    x = torch.randn(2, 7, 64).to(dtype)
    assert multiplies_slowly(x) == slow
    for out, part in zip(project(x, *maps), maps, strict=True):
        assert out.dtype == dtype
        exact = nn.functional.linear(x.float(), part.weight.float())
        if slow:
            assert torch.equal(out, exact.to(dtype))
        torch.testing.assert_close(out.float(), exact, atol=0.05, rtol=0.02)


def test_gradients_have_the_dtype_of_the_weight(slow):
    part = nn.Linear(4, 3, bias=False, dtype=torch.bfloat16)
    x = torch.ones(6, 4, dtype=torch.bfloat16, requires_grad=True)
    project(x, part)[0].sum().backward()
    assert x.grad.dtype == part.weight.grad.dtype == torch.bfloat16
    assert torch.equal(part.weight.grad, torch.full((3, 4), 6, dtype=torch.bfloat16))


def test_a_layer_with_a_hook_is_called_and_its_neighbour_is_not(slow):
    called, plain = (nn.Linear(4, 4, bias=False, dtype=torch.bfloat16) for _ in range(2))
    called.register_forward_hook(lambda *_: torch.zeros(1))
    x = torch.ones(6, 4, dtype=torch.bfloat16)
    first, second = project(x, called, plain)
    assert torch.equal(first, torch.zeros(1)) and second.shape == (6, 4)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_windows_keep_their_dtype(slow, dtype):
    q, k, v = torch.randn(3, 1, 9, 2, 8).to(dtype)
    assert computes_wide(q) == slow
    out = sliding_window_attention(q, k, v, window_size=4)
    exact = sliding_window_attention(q.double(), k.double(), v.double(), window_size=4)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, atol=0.02, rtol=0.02)


def test_what_is_wide_already_stays(slow):
    assert not multiplies_slowly(torch.ones(3)) and not multiplies_slowly(torch.ones(3).double())
