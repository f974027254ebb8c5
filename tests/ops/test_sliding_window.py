"""Sliding-window attention against a full mask."""

import pytest
import torch

from gcattn import sliding_window_attention
from gcattn.ops.sliding_window import reference

CASES = [
    # L, P, W
    (1, 0, 1),
    (1, 0, 4),
    (7, 0, 3),
    (12, 5, 4),
    (3, 9, 4),
    (5, 2, 8),
    (9, 0, 16),
    (33, 0, 16),
]


def full_mask(q, k, v, window_size, query_documents, key_documents):
    L, P = q.shape[1], k.shape[1] - q.shape[1]
    k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], dim=2) for x in (k, v))
    offset = torch.arange(L)[:, None] + P - torch.arange(P + L)
    visible = (offset >= 0) & (offset < window_size)
    visible = visible & (query_documents[:, :, None] == key_documents[:, None])
    scores = torch.einsum("blhd,bkhd->bhlk", q, k) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~visible.unsqueeze(1), -torch.inf)
    return torch.einsum("bhlk,bkhd->blhd", scores.softmax(-1), v)


def make(L, P, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, L, 4, 6, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, P + L, 2, 6, generator=generator, dtype=torch.float64)
    documents = torch.randint(0, 3, (2, P + L), generator=generator).sort(dim=1).values
    return q, k, v, documents


@pytest.mark.parametrize(("L", "P", "W"), CASES)
def test_output_and_gradients_equal_a_full_mask(L, P, W):
    q, k, v, documents = make(L, P)
    results = []
    for attend in (sliding_window_attention, None):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        if attend is None:
            out = full_mask(*leaves, W, documents[:, P:], documents)
        else:
            out = attend(
                *leaves, window_size=W, query_documents=documents[:, P:], key_documents=documents
            )
        out.square().sum().backward()
        results.append([out, *(x.grad for x in leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_windows_are_wider_than_a_block_or_narrower(monkeypatch):
    q, k, v, documents = make(11, 4)
    monkeypatch.setattr(reference, "MAX_BLOCK", 3)
    for W in (2, 3, 5, 40):
        found = sliding_window_attention(
            q, k, v, window_size=W, query_documents=documents[:, 4:], key_documents=documents
        )
        torch.testing.assert_close(found, full_mask(q, k, v, W, documents[:, 4:], documents))


def test_window_of_one_attends_only_to_itself():
    q, k, v, _ = make(5, 0)
    out = sliding_window_attention(q, k, v, window_size=1)
    assert torch.equal(out, v.repeat_interleave(2, dim=2))


def test_without_documents_all_columns_are_one_document():
    q, k, v, _ = make(9, 3)
    documents = torch.zeros(2, 12).long()
    expected = full_mask(q, k, v, 4, documents[:, 3:], documents)
    torch.testing.assert_close(sliding_window_attention(q, k, v, window_size=4), expected)


def test_autocast_brings_the_inputs_to_one_dtype():
    # a rotation in float32 leaves queries and keys wider than values
    q, k, v, _ = make(9, 3)
    q, k, v = q.float(), k.float(), v.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = sliding_window_attention(q, k, v, window_size=4)
    expected = sliding_window_attention(q.bfloat16(), k.bfloat16(), v, window_size=4)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, atol=0.02, rtol=0.02)
    with pytest.raises(ValueError, match="v must have the dtype and device of q"):
        sliding_window_attention(q, k, v, window_size=4)


def test_bad_input_is_refused():
    q, k, v, _ = make(5, 0)
    with pytest.raises(ValueError, match="window_size must be at least 1, got 0"):
        sliding_window_attention(q, k, v, window_size=0)
    with pytest.raises(ValueError, match="at least the 5 columns of q, got 4"):
        sliding_window_attention(q, k[:, :4], v[:, :4], window_size=2)
    with pytest.raises(ValueError, match="multiple of the 3 heads of k"):
        sliding_window_attention(
            q, k[:, :, :1].repeat(1, 1, 3, 1), v[:, :, :1].repeat(1, 1, 3, 1), window_size=2
        )
    with pytest.raises(ValueError, match="must be given together"):
        sliding_window_attention(q, k, v, window_size=2, key_documents=torch.zeros(2, 5).long())
    with pytest.raises(ValueError, match=r"key_documents must have shape \[2, 5\], got \[2, 4\]"):
        documents = torch.zeros(2, 5).long()
        sliding_window_attention(
            q, k, v, window_size=2, query_documents=documents, key_documents=documents[:, :4]
        )
    with pytest.raises(ValueError, match='impl must be "auto", "reference" or "triton"'):
        sliding_window_attention(q, k, v, window_size=2, impl="flash")
