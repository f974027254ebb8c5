"""A weight that is cut into blocks of outputs multiplies as it does whole."""

import pytest
import torch
from torch import nn

from gcattn.nn import projections
from gcattn.nn.projections import project
from gcattn.ops.projections import blocks, fits_blocks, project_in_blocks


@pytest.mark.parametrize("size", [256, 704, 381, 96])
@pytest.mark.parametrize("shape", [(1, 1, 12), (3, 1, 12), (2, 2, 5)])
def test_blocks_compute_every_output_of_every_row(shape, size):
    torch.manual_seed(size)
    x = torch.randn(shape, dtype=torch.float64)
    weight = torch.randn(size, shape[-1], dtype=torch.float64)
    torch.testing.assert_close(project_in_blocks(x, weight), x @ weight.T)


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(blocks, "MIN_WEIGHT", 8 * 64)


@torch.no_grad()
def test_what_blocks_do_not_suit_is_left_to_the_library(two_threads, monkeypatch):
    x, weight = torch.randn(1, 1, 8), torch.randn(64, 8)
    assert fits_blocks(x, weight)
    assert not fits_blocks(torch.randn(5, 1, 8), weight)  # rows
    assert not fits_blocks(x, torch.randn(48, 8))  # small
    assert not fits_blocks(x, torch.randn(61, 8))  # a prime number of outputs
    assert not fits_blocks(x, weight.T.contiguous().T)
    assert not fits_blocks(x.bfloat16(), weight.bfloat16())
    with torch.enable_grad():
        assert not fits_blocks(x, weight)
    with torch.autocast("cpu"):
        assert not fits_blocks(x, weight)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert not fits_blocks(x, weight)


@torch.no_grad()
def test_only_plain_maps_are_cut(two_threads, monkeypatch):
    seen = []
    monkeypatch.setattr(projections, "fits_kernel", lambda x, weight: False)
    monkeypatch.setattr(projections, "project_in_blocks", lambda x, w: seen.append(w) or x)
    plain, hooked, biased = (nn.Linear(8, 64, bias=i == 2) for i in range(3))
    hooked.register_forward_hook(lambda module, inputs, out: 2 * out)
    x = torch.randn(1, 1, 8)
    _, doubled, _ = project(x, plain, hooked, biased)
    assert seen == [plain.weight]
    torch.testing.assert_close(doubled, 2 * x @ hooked.weight.T)
