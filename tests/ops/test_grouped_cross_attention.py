"""Grouped Cross-Attention against the equation, written out slot by slot."""

import math
from dataclasses import replace

import pytest
import torch

from gcattn import grouped_cross_attention
from gcattn.testing import cross_attention_inputs

CASES = [
    {},
    {"H": 4, "G": 1},
    {"H": 3, "G": 3},
    {"H": 6, "G": 2, "D": 3},
    {"K": 1, "S": 1, "M": 1, "C": 1},
    {"K": 9, "N": 2},
    {"S": 7, "M": 2, "B": 1},
]
SINKS = [None, 0.0, 1.5]


def apply(inputs, **kwargs):
    """Call the operator, which without a gradient runs other lines: every claim is about both.

    Some processors round products of 16 bits elsewhere in each.
    """
    kwargs = {"chunk_lengths": inputs.chunk_lengths} | kwargs
    tensors = inputs.q, inputs.k, inputs.v, inputs.chunk_indices, inputs.chunk_weights
    out = grouped_cross_attention(*tensors, **kwargs)
    with torch.no_grad():
        other = grouped_cross_attention(*tensors, **kwargs)
    eps = torch.finfo(out.dtype).eps
    rounding = {} if out.dtype.itemsize > 2 else {"rtol": eps, "atol": eps}
    torch.testing.assert_close(other, out.detach(), **rounding)
    return out


def equation(inputs, sink_logit, scale):
    """o = sum_k w_k · softmax(scale · q K_k^T) V_k, one number at a time."""
    B, C, M, H, _ = inputs.q.shape
    group_size = H // inputs.k.shape[3]
    out = torch.zeros_like(inputs.q)
    for b, c, m, h in torch.cartesian_prod(*map(torch.arange, (B, C, M, H))).tolist():
        for n, w in zip(
            inputs.chunk_indices[b, c].tolist(), inputs.chunk_weights[b, c], strict=True
        ):
            length = int(inputs.chunk_lengths[b, n]) if n >= 0 else 0
            keys, values = (x[b, n, :length, h // group_size] for x in (inputs.k, inputs.v))
            exponentials = [math.exp(scale * float(key @ inputs.q[b, c, m, h])) for key in keys]
            total = sum(exponentials) + (0 if sink_logit is None else math.exp(sink_logit))
            for exponential, value in zip(exponentials, values, strict=True):
                out[b, c, m, h] += w * exponential / total * value
    return out


def joint_equation(inputs, sink_logit, scale):
    """o = sum_k w_k · exp(scale · q K_k^T) V_k over the sum of all factors, one at a time."""
    B, C, M, H, _ = inputs.q.shape
    group_size = H // inputs.k.shape[3]
    out = torch.zeros_like(inputs.q)
    for b, c, m, h in torch.cartesian_prod(*map(torch.arange, (B, C, M, H))).tolist():
        total = 0 if sink_logit is None else math.exp(sink_logit)
        for n, w in zip(
            inputs.chunk_indices[b, c].tolist(), inputs.chunk_weights[b, c], strict=True
        ):
            length = int(inputs.chunk_lengths[b, n]) if n >= 0 else 0
            keys, values = (x[b, n, :length, h // group_size] for x in (inputs.k, inputs.v))
            for key, value in zip(keys, values, strict=True):
                factor = w * math.exp(scale * float(key @ inputs.q[b, c, m, h]))
                out[b, c, m, h] += factor * value
                total += factor
        out[b, c, m, h] /= total if total > 0 else 1
    return out


@pytest.mark.parametrize("sink_logit", SINKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_the_papers_equation(case, sink_logit):
    inputs = cross_attention_inputs(**case)
    expected = equation(inputs, sink_logit, inputs.q.shape[-1] ** -0.5)
    torch.testing.assert_close(apply(inputs, sink_logit=sink_logit), expected)


@pytest.mark.parametrize("sink_logit", SINKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_joint_reference_is_one_softmax_with_the_weights_as_a_prior(case, sink_logit):
    inputs = cross_attention_inputs(**case)
    expected = joint_equation(inputs, sink_logit, inputs.q.shape[-1] ** -0.5)
    torch.testing.assert_close(apply(inputs, sink_logit=sink_logit, mixing="joint"), expected)


def test_one_chunk_mixed_jointly_is_its_own_softmax_whatever_its_weight():
    inputs = cross_attention_inputs(K=1)
    whole = replace(inputs, chunk_weights=torch.ones_like(inputs.chunk_weights))
    part = replace(inputs, chunk_weights=torch.full_like(inputs.chunk_weights, 0.3))
    torch.testing.assert_close(apply(part, mixing="joint"), apply(whole))


def test_scale_replaces_the_default_scale():
    inputs = cross_attention_inputs()
    torch.testing.assert_close(apply(inputs, scale=0.3), equation(inputs, None, 0.3))


@pytest.mark.parametrize("mixing", ["separate", "joint"])
@pytest.mark.parametrize("sink_logit", SINKS)
@pytest.mark.parametrize("case", CASES[:5], ids=str)
# in a random direction, and every derivative by itself
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_gradients_of_queries_keys_values_and_weights_are_exact(fast, case, sink_logit, mixing):
    inputs = cross_attention_inputs(**case)
    names = ("q", "k", "v", "chunk_weights")
    leaves = [getattr(inputs, n).requires_grad_() for n in names]

    def run(*tensors):
        given = replace(inputs, **dict(zip(names, tensors, strict=True)))
        return apply(given, sink_logit=sink_logit, mixing=mixing)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=fast)


@pytest.mark.parametrize("sink_logit", SINKS)
def test_a_joint_weight_of_zero_reads_nothing_and_has_the_gradient_of_its_first_step(sink_logit):
    inputs = cross_attention_inputs(N=6, K=3)
    inputs.chunk_indices[:] = torch.tensor([0, 1, 2])
    inputs.chunk_lengths.clamp_(min=1)
    inputs.chunk_weights[..., 1] = 0

    def run(weight):
        weights = inputs.chunk_weights.clone()
        weights[..., 1] = weight
        given = replace(inputs, chunk_weights=weights)
        return apply(given, sink_logit=sink_logit, mixing="joint").square().sum()

    without = replace(inputs, chunk_indices=inputs.chunk_indices.clone())
    without.chunk_indices[..., 1] = -1
    zero = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    at_zero = run(zero)
    expected = apply(without, sink_logit=sink_logit, mixing="joint").square().sum()
    torch.testing.assert_close(at_zero, expected)
    (found,) = torch.autograd.grad(at_zero, zero)
    step = 1e-5  # one-sided, exact to the second order
    slope = (4 * run(step) - 3 * at_zero - run(2 * step)).detach() / (2 * step)
    torch.testing.assert_close(found, slope, rtol=1e-7, atol=0)


@pytest.mark.parametrize("sink_logit", SINKS)
def test_joint_weights_that_are_all_zero_give_zero_and_finite_gradients(sink_logit):
    inputs = cross_attention_inputs()
    names = ("q", "k", "v", "chunk_weights")
    inputs.chunk_weights.zero_()
    leaves = [getattr(inputs, name).requires_grad_() for name in names]
    out = apply(inputs, sink_logit=sink_logit, mixing="joint")
    assert (out == 0).all()
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.sum(), leaves))


def test_a_negative_joint_weight_is_refused():
    inputs = cross_attention_inputs()
    inputs.chunk_indices[0, 0, 0] = 0
    inputs.chunk_weights[0, 0, 0] = -0.5
    with pytest.raises(ValueError, match=r"must not be negative with mixing=\"joint\", got -0.5"):
        apply(inputs, mixing="joint")
    inputs.chunk_indices[0, 0, 0] = -1
    apply(inputs, mixing="joint")


def test_unknown_mixing_is_refused():
    with pytest.raises(ValueError, match='mixing must be "separate" or "joint", got \'both\''):
        apply(cross_attention_inputs(), mixing="both")


def test_permuting_the_pool_with_its_indices_changes_nothing():
    inputs = cross_attention_inputs(N=6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    place = order.argsort()  # where each chunk went
    moved = replace(
        inputs,
        k=inputs.k[:, order],
        v=inputs.v[:, order],
        chunk_lengths=inputs.chunk_lengths[:, order],
        chunk_indices=torch.where(
            inputs.chunk_indices >= 0, place[inputs.chunk_indices.clamp_min(0)], -1
        ),
    )
    torch.testing.assert_close(apply(moved), apply(inputs), rtol=0, atol=1e-14)


def test_nothing_retrieved_gives_zero_and_keeps_the_graph():
    inputs = cross_attention_inputs()
    nothing = torch.full_like(inputs.chunk_indices, -1)
    q = inputs.q.requires_grad_()
    out = apply(replace(inputs, q=q, chunk_indices=nothing))
    assert (out == 0).all()
    out.sum().backward()
    assert (q.grad == 0).all()
    empty = replace(
        inputs,
        q=q,
        k=inputs.k[:, :0],
        v=inputs.v[:, :0],
        chunk_indices=nothing,
        chunk_lengths=inputs.chunk_lengths[:, :0],
    )
    assert (apply(empty) == 0).all()


@pytest.mark.parametrize("mixing", ["separate", "joint"])
def test_weight_of_an_empty_slot_is_ignored(mixing):
    inputs = cross_attention_inputs()
    poisoned = torch.where(inputs.chunk_indices < 0, torch.nan, inputs.chunk_weights)
    found = apply(replace(inputs, chunk_weights=poisoned), mixing=mixing)
    assert torch.equal(found, apply(inputs, mixing=mixing))


def test_off_by_one_equals_one_more_slot_with_zero_key_and_value():
    inputs = cross_attention_inputs(S=5)
    full = torch.full_like(inputs.chunk_lengths, 5)
    with_sink = replace(
        inputs,
        k=torch.cat([inputs.k, torch.zeros_like(inputs.k[:, :, :1])], dim=2),
        v=torch.cat([inputs.v, torch.zeros_like(inputs.v[:, :, :1])], dim=2),
        chunk_lengths=full + 1,
    )
    expected = apply(replace(inputs, chunk_lengths=full), sink_logit=0.0)
    torch.testing.assert_close(apply(with_sink), expected)


def test_a_sink_above_all_logits_reads_nothing_and_one_below_them_changes_nothing():
    inputs = cross_attention_inputs()
    assert apply(inputs, sink_logit=1e3).abs().max() < 1e-300
    torch.testing.assert_close(apply(inputs, sink_logit=-1e3), apply(inputs), rtol=0, atol=0)


@pytest.mark.parametrize("mixing", ["separate", "joint"])
@pytest.mark.parametrize("sink_logit", SINKS)
def test_large_logits_do_not_overflow(sink_logit, mixing):
    inputs = cross_attention_inputs(dtype=torch.float32)
    inputs.chunk_weights[..., 0] = 0
    names = ("q", "k", "v", "chunk_weights")
    leaves = [getattr(inputs, name).requires_grad_() for name in names]
    out = apply(replace(inputs, q=inputs.q * 1e4), sink_logit=sink_logit, mixing=mixing)
    assert out.isfinite().all()
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.sum(), leaves))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("mixing", ["separate", "joint"])
def test_every_float_dtype_stays_within_its_rounding(dtype, mixing):
    inputs = cross_attention_inputs(dtype=dtype)
    out = apply(inputs, mixing=mixing)
    assert out.dtype == dtype
    expected = apply(inputs.to(torch.float64), mixing=mixing)
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"q": torch.zeros(2, 3, 5, 4)},
            r"q must have shape \[B, C, M, H, D\], got \[2, 3, 5, 4\]",
        ),
        ({"k": torch.zeros(2, 6, 5, 2, 7).double()}, r"k must have shape .*got \[2, 6, 5, 2, 7\]"),
        ({"v": torch.zeros(2, 6, 5, 1, 8).double()}, r"v must have the shape of k"),
        ({"q": torch.zeros(2, 3, 5, 3, 8).double()}, r"3 heads, which must be a multiple of the 2"),
        ({"q": torch.zeros(2, 3, 5, 4, 8).float()}, r"k must have the dtype of q, torch.float32"),
        (
            {"chunk_indices": torch.zeros(2, 4, 3).long()},
            r"\[B, C, K\] = \[2, 3, K\], got \[2, 4, 3\]",
        ),
        ({"chunk_indices": torch.zeros(2, 3, 3)}, r"int32 or int64, got torch.float32"),
        (
            {"chunk_indices": torch.full((2, 3, 3), 6)},
            r"pool of 6 chunks must be -1 … 5, got 6 … 6",
        ),
        ({"chunk_weights": torch.zeros(2, 3, 2)}, r"chunk_weights must have the shape"),
        ({"chunk_lengths": torch.zeros(2, 5).long()}, r"\[B, N\] = \[2, 6\], got \[2, 5\]"),
        ({"chunk_lengths": torch.zeros(2, 6)}, r"integer dtype, got torch.float32"),
    ],
)
def test_bad_input_says_what_was_expected_and_what_came(change, message):
    inputs = replace(cross_attention_inputs(), **change)
    with pytest.raises(ValueError, match=message):
        apply(inputs)


def test_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match=r"impl must be .*, got 'flash'"):
        apply(cross_attention_inputs(), impl="flash")
