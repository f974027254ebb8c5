"""One query, as in decoding, has kernels of its own: within the error budget of the reference."""

import os
from dataclasses import replace

import pytest
import torch

from gcattn import grouped_cross_attention, sliding_window_attention
from gcattn.ops.grouped_cross_attention import api as cross_api
from gcattn.ops.grouped_cross_attention import triton_single as cross_single
from gcattn.ops.sliding_window import api, triton_single
from gcattn.testing import assert_within_budget, cross_attention_inputs

pytest.importorskip("triton", reason="Triton is not installed")
ON_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(
    not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs a GPU or TRITON_INTERPRET=1",
)
DEVICE = "cuda" if ON_GPU else "cpu"
# the interpreter cuts bfloat16 off where a GPU rounds it
DTYPES = [torch.float32, torch.bfloat16 if ON_GPU else torch.float16]
WINDOWS = [
    # T, W, H, G, D
    (64, 64, 12, 12, 16),
    (1, 5, 2, 1, 16),
    (70, 33, 6, 2, 20),
    (40, 1, 3, 3, 70),
    *([(512, 512, 12, 12, 64), (700, 512, 16, 2, 128), (5000, 4000, 4, 4, 80)] if ON_GPU else []),
]


def factor(dtype):
    # the hardware's exponential is approximate, which float32 shows
    return 8.0 if ON_GPU and dtype == torch.float32 else 2.0


def window_inputs(T, H, G, D, dtype):
    torch.manual_seed(T + D)
    q = torch.randn(3, 1, H, D).to(DEVICE, dtype)
    k, v = torch.randn(2, 3, T, G, D).to(DEVICE, dtype)
    # rings begin anywhere, so documents come in any order
    return q, k, v, torch.randint(-1, 2, (3, T), device=DEVICE)


def attend(q, k, v, documents, W, impl, dtype=None):
    q, k, v = (x.to(dtype or x.dtype) for x in (q, k, v))
    named = {}
    if documents is not None:
        named = {"query_documents": documents[:, -1:], "key_documents": documents}
    return sliding_window_attention(q, k, v, window_size=W, impl=impl, **named)


def check_window(q, k, v, documents, W):
    assert_within_budget(
        attend(q, k, v, documents, W, "triton"),
        attend(q, k, v, documents, W, "reference"),
        attend(q, k, v, documents, W, "reference", torch.float64),
        factor=factor(q.dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_documents", [False, True])
@pytest.mark.parametrize(("T", "W", "H", "G", "D"), WINDOWS)
def test_a_query_reads_its_window(T, W, H, G, D, with_documents, dtype):
    *inputs, documents = window_inputs(T, H, G, D, dtype)
    check_window(*inputs, documents if with_documents else None, W)


def test_a_window_of_several_tiles_is_one_softmax(monkeypatch):
    monkeypatch.setattr(triton_single, "TILE_BYTES", 16 * 32 * 4)  # 16 keys
    api._prepare.cache_clear()
    check_window(*window_inputs(77, 4, 2, 24, torch.float32), 70)
    api._prepare.cache_clear()


def test_a_query_that_sees_nothing_gives_zero():
    q, k, v, _ = window_inputs(9, 2, 1, 16, torch.float32)
    mine, others = (torch.full((3, n), x, device=DEVICE) for n, x in ((1, 0), (9, 1)))
    out = sliding_window_attention(
        q, k, v, window_size=5, query_documents=mine, key_documents=others, impl="triton"
    )
    assert (out == 0).all()


def test_windows_are_read_in_place_from_any_strides():
    q, k, v, documents = window_inputs(50, 4, 2, 16, torch.float32)
    expected = attend(q, k, v, documents, 30, "triton")
    heads_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(attend(*heads_first, documents, 30, "triton"), expected)


def test_a_row_is_bitwise_the_same_among_others():
    q, k, v, documents = window_inputs(50, 4, 2, 16, torch.float32)
    whole = attend(q, k, v, documents, 30, "triton")
    alone = attend(q[1:2], k[1:2], v[1:2], documents[1:2], 30, "triton")
    assert torch.equal(alone, whole[1:2])


CHUNKS = [
    {},
    {"H": 6, "G": 2, "D": 20, "S": 11, "K": 5},
    {"K": 1, "S": 1, "D": 3, "seed": 3},
    {"K": 9, "N": 2, "B": 3},
    *([{"H": 12, "G": 12, "D": 64, "S": 64, "K": 8, "N": 40, "B": 3}] if ON_GPU else []),
    *([{"H": 4, "G": 2, "D": 128, "S": 100, "K": 3, "N": 9, "B": 2}] if ON_GPU else []),
]


def read_chunks(inputs, impl, **kwargs):
    x = inputs
    if impl == "triton":
        assert cross_single.fits_single(x.q, x.k, x.chunk_indices)
    named = {"chunk_lengths": x.chunk_lengths, "impl": impl} | kwargs
    return grouped_cross_attention(x.q, x.k, x.v, x.chunk_indices, x.chunk_weights, **named)


def chunk_inputs(dtype, **sizes):
    inputs = cross_attention_inputs(C=1, M=1, **sizes).to(dtype)
    names = ("q", "k", "v", "chunk_weights", "chunk_indices", "chunk_lengths")
    return replace(inputs, **{name: getattr(inputs, name).to(DEVICE) for name in names})


def check_chunks(inputs, **kwargs):
    assert_within_budget(
        read_chunks(inputs, "triton", **kwargs),
        read_chunks(inputs, "reference", **kwargs),
        read_chunks(inputs.to(torch.float64), "reference", **kwargs),
        factor=factor(inputs.q.dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sink_logit", [None, 1.5])
@pytest.mark.parametrize("mixing", ["separate", "joint"])
@pytest.mark.parametrize("sizes", CHUNKS, ids=str)
def test_a_query_reads_its_chunks(sizes, mixing, sink_logit, dtype):
    check_chunks(chunk_inputs(dtype, **sizes), mixing=mixing, sink_logit=sink_logit)


@pytest.mark.parametrize("mixing", ["separate", "joint"])
def test_chunks_of_several_tiles_are_read_as_those_of_one(mixing, monkeypatch):
    monkeypatch.setattr(cross_single, "TILE_BYTES", 2 * 8 * 8 * 4)  # 2 chunks
    cross_api._prepare.cache_clear()
    check_chunks(chunk_inputs(torch.float32, K=4), mixing=mixing)
    cross_api._prepare.cache_clear()


@pytest.mark.parametrize("mixing", ["separate", "joint"])
def test_a_query_that_retrieved_nothing_reads_zero(mixing):
    inputs = chunk_inputs(torch.float32)
    inputs = replace(inputs, chunk_indices=torch.full_like(inputs.chunk_indices, -1))
    assert (read_chunks(inputs, "triton", mixing=mixing) == 0).all()


def test_many_chunks_are_left_to_many_programs():
    inputs = chunk_inputs(torch.float32, K=700, D=64)
    assert not cross_single.fits_single(inputs.q, inputs.k, inputs.chunk_indices)
