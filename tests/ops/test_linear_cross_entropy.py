"""The loss of the output layer without all logits, against the plain way."""

import sys

import pytest
import torch
import torch.nn.functional as F

from gcattn.ops import linear_cross_entropy

MODULE = sys.modules["gcattn.ops.linear_cross_entropy"]
V, E = 11, 6


def inputs(n, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    hidden = torch.randn(n, E, generator=generator, dtype=torch.float64).to(dtype)
    table = torch.randn(V, E, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(0, V, (n,), generator=generator)
    targets[::4] = -100
    return hidden.requires_grad_(), table.requires_grad_(), targets


@pytest.mark.parametrize("n", [1, 7, 8, 9, 20])
@pytest.mark.parametrize("alignment", [1, 8])
def test_loss_and_gradients_equal_cross_entropy_of_all_logits(n, alignment, monkeypatch):
    monkeypatch.setattr(MODULE, "SLICE", 8)
    monkeypatch.setattr(MODULE, "ALIGNMENT", alignment)  # with 8 the table of 11 ids gets 5 more
    hidden, table, targets = inputs(n)
    expected = F.cross_entropy(hidden @ table.T, targets, reduction="sum")
    wanted = torch.autograd.grad(3 * expected, (hidden, table))

    total = linear_cross_entropy(hidden, table, targets)
    torch.testing.assert_close(total, expected)
    for found, right in zip(torch.autograd.grad(3 * total, (hidden, table)), wanted, strict=True):
        torch.testing.assert_close(found, right)
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, table, targets)
    torch.testing.assert_close(loss, expected)


def test_ignored_tokens_have_no_loss_and_no_gradient():
    hidden, table, targets = inputs(5)
    total = linear_cross_entropy(hidden, table, torch.full_like(targets, -100))
    total.backward()
    assert total == 0
    assert not hidden.grad.any() and not table.grad.any()


def test_autocast_computes_in_its_dtype_and_sums_in_float32():
    hidden, table, targets = inputs(9, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        total = linear_cross_entropy(hidden, table, targets)
    rounded = F.cross_entropy(
        (hidden.bfloat16() @ table.bfloat16().T).float(), targets, reduction="sum"
    )
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, rounded)
    total.backward()
    assert hidden.grad.dtype == table.grad.dtype == torch.float32


@pytest.mark.parametrize("wrong", [-1, -101, V, V + 2])
def test_a_target_that_is_no_id_is_named_or_where_looking_would_wait_makes_the_loss_nan(wrong):
    hidden, table, targets = inputs(5)
    targets[2] = wrong
    with pytest.raises(ValueError, match=f"must be -100 or ids 0 … 10, got {wrong}"):
        linear_cross_entropy(hidden, table, targets)
    compiled = torch.compile(linear_cross_entropy, backend="eager")
    assert compiled(hidden, table, targets).isnan()


def test_shapes_that_do_not_fit_are_refused():
    hidden, table, targets = inputs(3)
    with pytest.raises(ValueError, match="must agree in E"):
        linear_cross_entropy(hidden, table[:, :2], targets)
    with pytest.raises(ValueError, match=r"targets must have shape \[3\]"):
        linear_cross_entropy(hidden, table, targets[:2])
