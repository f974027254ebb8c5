"""Kernels in C for a decoded token: within the error budget of the lines they stand for."""

import logging
import os
import threading

import pytest
import torch
import torch.nn.functional as F

from gcattn import sliding_window_attention
from gcattn.models.recorded_calls import RecordedCalls
from gcattn.ops.chunk_topk import native_scores
from gcattn.ops.chunk_topk.candidates import chunk_candidates
from gcattn.ops.grouped_cross_attention import in_order, read_in_order
from gcattn.ops.native import has_kernels, library, runs_native
from gcattn.ops.pointwise import (
    add,
    add_rms_norm,
    angles,
    convolution,
    mix_columns,
    rms_norm,
    rotary_angles,
    rotate,
    silu_times,
    write_columns,
)
from gcattn.ops.projections import fits_kernel, native_few_rows, project_natively
from gcattn.ops.sliding_window.native_single import fits_kernel as fits_window
from gcattn.testing import assert_within_budget

DTYPES = [torch.float32, torch.bfloat16]
needs_kernels = pytest.mark.skipif(
    not all(has_kernels(1, dtype) for dtype in DTYPES), reason="there is no C compiler"
)
pytestmark = [needs_kernels, pytest.mark.parametrize("dtype", DTYPES, ids=str)]


@pytest.fixture(autouse=True)
def without_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def check(run, *inputs):
    """Hold a kernel ("auto") to the lines in the same dtype, and both to float64."""
    wide = [x.double() if x.is_floating_point() else x for x in inputs]
    outputs = run("auto", *inputs), run("reference", *inputs), run("reference", *wide)
    outputs = [x if isinstance(x, tuple) else (x,) for x in outputs]
    for fast, plain, truth in zip(*outputs, strict=True):
        assert fast.dtype == plain.dtype and fast.shape == plain.shape
        assert_within_budget(fast, plain, truth)


@pytest.mark.parametrize("shape", [(1, 1, 256), (4, 1, 20), (1, 3, 7)])
def test_norms_round_where_their_lines_do(dtype, shape):
    x, added, weight = (torch.randn(s).to(dtype) for s in (shape, shape, shape[-1:]))
    assert runs_native(shape[0] * shape[1], x, added, weight)
    check(lambda impl, *inputs: rms_norm(*inputs, 1e-6, impl=impl), x, weight)
    check(lambda impl, *inputs: add_rms_norm(*inputs, 1e-6, impl=impl), x, added, weight)


def test_sums_round_where_their_lines_do(dtype):
    x, added = torch.randn(2, 3, 1, 40).to(dtype)
    assert torch.equal(add(x, added), x + added)
    assert torch.equal(add(x, added[:1]), x + added[:1])


@pytest.mark.parametrize("num_taps", [1, 2, 4])
def test_a_column_is_mixed_with_those_before_it_in_its_document(dtype, num_taps):
    x, weight = torch.randn(3, num_taps, 24).to(dtype), torch.randn(num_taps, 24).to(dtype)
    positions = torch.tensor([[0], [2], [900]])
    assert convolution._fits_kernel(x, weight, positions)
    check(lambda impl, *inputs: mix_columns(*inputs, impl=impl), x, weight, positions)


def test_angles_are_exact_far_into_a_text(dtype):
    positions = torch.tensor([[0], [7], [16_000_001]])
    assert angles._fits_kernel(positions, dtype)
    found = rotary_angles(positions, 12, 10_000.0, dtype)
    expected = rotary_angles(positions, 12, 10_000.0, dtype, impl="reference")
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("B", "H", "G", "D"), [(1, 4, 4, 64), (3, 6, 2, 10), (1, 1, 1, 2)])
def test_heads_are_rotated_as_by_the_lines(dtype, B, H, G, D):
    q, k = torch.randn(B, 1, H, D).to(dtype), torch.randn(B, 1, G, D).to(dtype)
    angles = torch.randn(B, 1, 1, D) * 9
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    for found, expected in zip(
        rotate(q, k, (cos, sin)), rotate(q, k, (cos, sin), impl="reference"), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_gates_hold_from_one_end_of_the_dtype_to_the_other(dtype):
    gate = torch.cat([torch.randn(700) * 4, torch.tensor([0.0, -0.0, 88, -88, 300, -300, -1e30])])
    gate, up = gate.to(dtype)[None], torch.randn(1, len(gate)).to(dtype)
    check(lambda impl, *inputs: silu_times(*inputs, impl=impl), gate, up)


@pytest.mark.parametrize(("N", "n"), [(256, 704), (1, 2), (7, 22), (4099, 64), (66, 4096)])
@pytest.mark.parametrize("rows", [1, 4])
def test_every_output_of_every_row_is_computed(dtype, rows, N, n, monkeypatch):
    x, weight = torch.randn(rows, 1, n).to(dtype), torch.randn(N, n).to(dtype)
    assert fits_kernel(x, [weight])
    monkeypatch.setattr(native_few_rows, "MIN_SHARED_WEIGHTS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    weights = [weight, weight[: N // 2].clone() + 1, weight.flip(0)]
    alone = project_natively(x, weights)
    for out, w in zip(alone, weights, strict=True):
        assert_within_budget(out, F.linear(x, w), F.linear(x.double(), w.double()))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for _ in range(20):
        again = project_natively(x, weights)
        assert all(torch.equal(a, b) for a, b in zip(again, alone, strict=True))


def test_threads_that_call_at_once_get_results_of_their_own(dtype):
    weights = [torch.randn(2048, 96).to(dtype) for _ in range(3)]
    x = torch.randn(1, 96).to(dtype)
    expected, wrong = project_natively(x, weights[:3]), []

    def call(number):
        with torch.no_grad():
            for _ in range(50):
                if not torch.equal(project_natively(x, [weights[number]])[0], expected[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_computes_too(dtype, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    x, weight = torch.randn(1, 64).to(dtype), torch.randn(4096, 64).to(dtype)
    (expected,) = project_natively(x, [weight])
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(project_natively(x, [weight])[0], expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


RINGS = [(1, 9, 4, 4, 16), (3, 130, 6, 2, 20), (2, 64, 3, 1, 256), (1, 1, 1, 1, 4)]


@pytest.mark.parametrize(("B", "W", "H", "G", "D"), RINGS)
@pytest.mark.parametrize("heads_first", [True, False])
def test_one_query_reads_its_window(dtype, B, W, H, G, D, heads_first):
    q = torch.randn(B, 1, H, D).to(dtype)
    rings = [torch.randn(B, G, W, D).to(dtype).transpose(1, 2) for _ in range(2)]
    if not heads_first:
        rings = [x.contiguous() for x in rings]
    documents = torch.randint(-1, 2, (B, W))
    mine = documents[:, -1:].clone()
    assert fits_window(q, *rings, mine, documents, W)

    def attend(impl, q, k, v, *documents):
        named = dict(zip(("query_documents", "key_documents"), documents, strict=False))
        return sliding_window_attention(q, k, v, window_size=W, impl=impl, **named)

    check(attend, q, *rings)
    check(attend, q, *rings, mine, documents)
    # a query that sees nothing gives zero
    nothing = attend("auto", q, *rings, torch.full_like(mine, 7), documents)
    assert not nothing.any()


@pytest.mark.parametrize(("B", "W", "H", "G", "D"), RINGS)
def test_a_column_is_written_in_its_place_and_nowhere_else(dtype, B, W, H, G, D):
    rings = tuple(torch.randn(B, G, W, D).to(dtype).transpose(1, 2) for _ in range(2))
    columns = tuple(torch.randn(B, 1, G, D).to(dtype) for _ in range(2))
    at, expected = torch.randint(W, (B,)), tuple(x.clone() for x in rings)
    write_columns(rings, columns, at)
    write_columns(expected, columns, at, impl="reference")
    assert all(torch.equal(a, b) for a, b in zip(rings, expected, strict=True))


@pytest.mark.parametrize("sink_logit", [None, 0.0, 60.0])
@pytest.mark.parametrize(
    ("B", "K", "S", "H", "G", "D"), [(1, 8, 64, 4, 4, 64), (3, 2, 5, 6, 2, 10)]
)
@pytest.mark.parametrize("is_joint", [False, True])
def test_retrieved_chunks_are_read_and_mixed(
    dtype, B, K, S, H, G, D, sink_logit, is_joint, monkeypatch
):
    q = torch.randn(B, 1, 1, H, D).to(dtype)
    # a group's chunks in a pool of two groups
    k, v = (torch.randn(B, G, 2 * K, S, D).to(dtype).permute(0, 2, 3, 1, 4)[:, K:] for _ in "kv")
    weights = torch.rand(B, 1, K)
    lengths = torch.randint(1, S + 1, (B, 2 * K))[:, K:]
    lengths[0, -1], weights[0, 0, -1] = 0, 0
    weights[-1, 0, 0] = 0
    assert in_order._fits_kernel(q, k, v, weights, lengths)
    found, plain, truth = (
        read_in_order(q.to(wide), k.to(wide), v.to(wide), weights, lengths, **named)
        for named in [{"sink_logit": sink_logit, "is_joint": is_joint}]
        for wide in (dtype, torch.float32, torch.float64)
    )
    if dtype == torch.float32:
        monkeypatch.setattr(in_order, "_fits_kernel", lambda *_: False)
        plain = read_in_order(q, k, v, weights, lengths, sink_logit=sink_logit, is_joint=is_joint)
    assert_within_budget(found, plain.to(dtype), truth)


@pytest.mark.parametrize("num_chunks", [1, 7, 20000])
@pytest.mark.parametrize("num_queries", [1, 4])
def test_few_queries_choose_the_same_chunks(dtype, num_queries, num_chunks):
    queries = torch.randn(1, num_queries, 64).to(dtype)
    landmarks = torch.randn(1, num_chunks, 64).to(dtype)
    visible = torch.full((1, num_queries), num_chunks)
    assert native_scores.fits_kernel(queries, landmarks)
    found = chunk_candidates(queries, landmarks, visible, 5)
    expected = chunk_candidates(queries, landmarks, visible, 5, impl="reference")
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-5)


def test_recorded_calls_compute_anew_from_what_lies_in_the_same_places(dtype):
    x, weight, gain = (torch.randn(s).to(dtype) for s in ((1, 32), (8, 32), (8,)))
    graphs = RecordedCalls()
    with graphs.beside():
        graphs.begin()
        y = rms_norm(project_natively(x, [weight])[0], gain, None)
        total = y + 1
        replay = graphs.end()
    for _ in range(3):
        x.normal_()
        weight.normal_()
        replay()
        assert torch.equal(y, rms_norm(project_natively(x, [weight])[0], gain, None))
        assert torch.equal(total, y + 1)
    assert len(graphs._recordings[0].recorded) == 3
    # the two kernels are one call
    assert len(graphs._recordings[0].calls) == 2


def test_what_kernels_do_not_suit_is_left_to_pytorch(dtype):
    x = torch.randn(1, 8, dtype=dtype)
    assert runs_native(1, x)
    assert not runs_native(5, x)  # rows
    assert not runs_native(1, x.double())
    assert not runs_native(1, x.half())
    assert not runs_native(1, x, torch.randn(8, dtype=torch.float64))
    assert not runs_native(1, torch.randn(8, 4, dtype=dtype).T)
    assert not runs_native(1, torch.randn(1, 8, dtype=dtype, device="meta"))
    with torch.enable_grad():
        assert not runs_native(1, x)
    with torch.autocast("cpu"):
        assert not runs_native(1, x)
    assert not fits_kernel(torch.randn(1, 7, dtype=dtype), [torch.randn(3, 7, dtype=dtype)])


@pytest.fixture
def fresh():
    library.load_kernels.cache_clear()
    yield
    library.load_kernels.cache_clear()


@pytest.mark.parametrize(
    ("compiler", "reason"), [("no-such-compiler", "no C compiler"), ("false", "false failed")]
)
def test_without_a_compiler_pytorch_computes_and_a_warning_says_why(
    dtype, fresh, compiler, reason, monkeypatch, caplog
):
    monkeypatch.setenv("CC", compiler)
    gate, up = torch.randn(2, 1, 8).to(dtype)
    with caplog.at_level(logging.WARNING, logger=library.logger.name):
        found = silu_times(gate, up)
        silu_times(gate, up)
    assert torch.equal(found, silu_times(gate, up, impl="reference"))
    assert [reason in message for message in caplog.messages] == [True]


def test_kernels_are_compiled_once(dtype, fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library.load_kernels(dtype) is not None
    (compiled,) = (tmp_path / "gcattn").iterdir()
    made = compiled.stat().st_mtime_ns
    library.load_kernels.cache_clear()
    assert library.load_kernels(dtype) is not None
    assert compiled.stat().st_mtime_ns == made
