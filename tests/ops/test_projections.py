"""Linear maps of few rows: several weights in one launch, within the error budget of the lines."""

import os

import pytest
import torch
from torch import nn

from gcattn.nn.projections import is_plain_map, project
from gcattn.ops.projections import project_few_rows
from gcattn.testing import assert_within_budget

pytest.importorskip("triton", reason="Triton is not installed")
ON_GPU = torch.cuda.is_available()
kernels = pytest.mark.skipif(
    not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs a GPU or TRITON_INTERPRET=1",
)
DEVICE = "cuda" if ON_GPU else "cpu"
# the interpreter cuts bfloat16 off where a GPU rounds it
DTYPES = [torch.float32, torch.bfloat16 if ON_GPU else torch.float16]


def draw(shape, sizes, dtype=torch.float32):
    torch.manual_seed(sum(shape))
    weights = [torch.randn(n, shape[-1]).to(DEVICE, dtype) for n in sizes]
    return torch.randn(shape).to(DEVICE, dtype), weights


@kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1, 1, 64), (64, 16, 16)),
        ((3, 1, 33), (10, 7)),
        ((2, 2, 2100), (9,)),  # more inputs than a program reads at once
    ],
)
def test_every_map_of_every_row_is_computed(shape, sizes, dtype):
    x, weights = draw(shape, sizes, dtype)
    with torch.no_grad():
        fast = project_few_rows(x, weights, impl="triton")
        plain = project_few_rows(x, weights, impl="reference")
        truth = project_few_rows(x.double(), [w.double() for w in weights], impl="reference")
    for results in zip(fast, plain, truth, strict=True):
        assert_within_budget(*results)


@kernels
def test_a_row_is_bitwise_the_same_among_others():
    x, weights = draw((4, 1, 96), (32, 8))
    whole = project_few_rows(x, weights, impl="triton")
    alone = project_few_rows(x[1:2], weights, impl="triton")
    assert all(torch.equal(a, b[1:2]) for a, b in zip(alone, whole, strict=True))


@kernels
def test_the_kernel_refuses_what_it_cannot_do():
    x, weights = draw((5, 1, 8), (8,))
    with pytest.raises(ValueError, match="takes 1 to 4 rows and 3 maps, got 5 and 1"):
        project_few_rows(x, weights, impl="triton")
    with pytest.raises(ValueError, match="got 1 and 4"):
        project_few_rows(x[:1], weights * 4, impl="triton")
    with pytest.raises(ValueError, match="has no gradient"):
        project_few_rows(x[:1].requires_grad_(), weights, impl="triton")
    with (
        torch.no_grad(),
        torch.autocast(DEVICE, torch.bfloat16),
        pytest.raises(ValueError, match="casts nothing"),
    ):
        project_few_rows(x[:1], weights, impl="triton")


def test_only_what_multiplies_and_nothing_else_shares_a_launch():
    linear = nn.Linear(4, 4, bias=False)
    assert is_plain_map(linear)
    assert not is_plain_map(nn.Linear(4, 4))
    assert not is_plain_map(nn.Sequential(linear))
    assert not is_plain_map(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4, bias=False)))
    hook = linear.register_forward_hook(lambda *_: None)
    assert not is_plain_map(linear)
    hook.remove()
    hook = nn.modules.module.register_module_forward_pre_hook(lambda *_: None)
    assert not is_plain_map(linear)
    hook.remove()
    assert is_plain_map(linear)
    linear.forward = lambda x: x
    assert not is_plain_map(linear)


@torch.no_grad()
def test_a_map_with_a_hook_is_called():
    maps = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(2)).to(DEVICE)
    maps[1].register_forward_hook(lambda *_: torch.zeros(1))
    first, second = project(torch.ones(1, 4, device=DEVICE), *maps)
    assert torch.equal(second, torch.zeros(1)) and first.shape == (1, 4)
