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
    return grouped_cross_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        inputs.chunk_indices,
        inputs.chunk_weights,
        **({"chunk_lengths": inputs.chunk_lengths} | kwargs),
    )


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


@pytest.mark.parametrize("sink_logit", SINKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_the_papers_equation(case, sink_logit):
    inputs = cross_attention_inputs(**case)
    expected = equation(inputs, sink_logit, inputs.q.shape[-1] ** -0.5)
    torch.testing.assert_close(apply(inputs, sink_logit=sink_logit), expected)


def test_scale_replaces_the_default_scale():
    inputs = cross_attention_inputs()
    torch.testing.assert_close(apply(inputs, scale=0.3), equation(inputs, None, 0.3))


@pytest.mark.parametrize("sink_logit", SINKS)
@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_gradients_of_queries_keys_values_and_weights_are_exact(case, sink_logit):
    inputs = cross_attention_inputs(**case)
    names = ("q", "k", "v", "chunk_weights")
    leaves = [getattr(inputs, n).requires_grad_() for n in names]

    def run(*tensors):
        given = replace(inputs, **dict(zip(names, tensors, strict=True)))
        return apply(given, sink_logit=sink_logit)

    assert torch.autograd.gradcheck(run, leaves)


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


def test_weight_of_an_empty_slot_is_ignored():
    inputs = cross_attention_inputs()
    poisoned = torch.where(inputs.chunk_indices < 0, torch.nan, inputs.chunk_weights)
    assert torch.equal(apply(replace(inputs, chunk_weights=poisoned)), apply(inputs))


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


@pytest.mark.parametrize("sink_logit", SINKS)
def test_large_logits_do_not_overflow(sink_logit):
    inputs = cross_attention_inputs(dtype=torch.float32)
    out = apply(replace(inputs, q=inputs.q * 1e4), sink_logit=sink_logit)
    assert out.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_float_dtype_stays_within_its_rounding(dtype):
    inputs = cross_attention_inputs(dtype=dtype)
    out = apply(inputs)
    assert out.dtype == dtype
    expected = apply(inputs.to(torch.float64))
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
