"""The operator's benchmark: fields, exclusions, and silence where something is wrong."""

import signal
import time
from dataclasses import replace

import pytest
import torch

from benchmarks.contestant import Contestant, PreparedCall, UnavailableError
from benchmarks.contestants import contestants
from benchmarks.gate import RedGateError
from benchmarks.inputs import random_inputs
from benchmarks.op_timing import bench_operator
from benchmarks.peers import nsa_heads
from benchmarks.shapes import OperatorShape, shapes_by_length
from benchmarks.time_limit import TimeLimitError, time_limit

CPU = torch.device("cpu")
SHAPES = shapes_by_length(
    OperatorShape(
        length=32,
        heads=2,
        kv_heads=1,
        head_dim=8,
        top_k=2,
        chunk_size=8,
        window=12,
        dtype="float32",
    ),
    [32, 64],
)
QUICK = {"warmup_ms": 0.0, "measure_ms": 1.0}
OURS = {c.name: c for c in contestants() if not c.is_foreign}


@pytest.mark.slow
def test_every_contestant_has_times_rates_and_a_share_of_the_floor_or_a_reason():
    metrics = bench_operator(SHAPES, contestants(), CPU, **QUICK)
    assert metrics["ceilings"]["matmul_tflop_per_s"] > 0
    assert [m["shape"]["length"] for m in metrics["shapes"]] == [32, 64]
    for measured in metrics["shapes"]:
        assert set(measured["contestants"]) == {c.name for c in contestants()}
        for name in OURS:
            row = measured["contestants"][name]
            assert row["peak_mib"] is None  # a CPU does not say
            for part in ("forward", "forward_backward"):
                timing = row[part]
                assert 0 < timing["p20_ms"] <= timing["median_ms"] <= timing["p80_ms"]
                assert timing["repetitions"] >= 10
                seconds = timing["median_ms"] / 1e3
                passes = 1.0 if part == "forward" else 3.5
                flops = passes * OURS[name].flops(OperatorShape(**measured["shape"]))
                assert timing["tflop_per_s"] == pytest.approx(flops / seconds / 1e12)
                share = timing["floor_ms"] / timing["median_ms"]
                assert timing["share_of_floor"] == pytest.approx(share)
    assert metrics["shapes"][0]["contestants"]["flex sliding window"]["unavailable"]
    checked = metrics["gate"][0]["relative_errors"]
    assert set(checked) == set(OURS) - {"SDPA full causal"}


def test_nothing_is_measured_when_one_operator_is_wrong(monkeypatch):
    measured = []
    monkeypatch.setattr("benchmarks.op_timing.time_call", lambda *a, **k: measured.append(a))
    right = OURS["gcattn"]

    def prepare(inputs):
        call = right.prepare(inputs)
        return PreparedCall(lambda: 1.02 * call.run(), call.leaves, call.as_columns)

    wrong = replace(right, name="wrong", prepare=prepare)
    with pytest.raises(RedGateError, match="wrong is wrong"):
        bench_operator(SHAPES, [right, wrong], CPU, **QUICK)
    assert measured == []


def raising(error, name="raising", is_foreign=False):
    def prepare(inputs):
        raise error

    return Contestant(name, "block_sparse", prepare, is_foreign=is_foreign)


@pytest.mark.parametrize(
    ("contestant", "reasons"),
    [
        (raising(UnavailableError("not installed")), ["not installed", "not installed"]),
        (
            raising(torch.OutOfMemoryError("CUDA out of memory")),
            ["out of memory", "not run: out of memory at B1 L32 H2 G1 D8 K2 S8"],
        ),
    ],
    ids=["unavailable", "memory"],
)
@pytest.mark.slow
def test_who_cannot_take_part_is_recorded_with_a_reason(contestant, reasons):
    metrics = bench_operator(SHAPES, [OURS["gcattn"], contestant], CPU, **QUICK)
    rows = [m["contestants"]["raising"] for m in metrics["shapes"]]
    assert rows == [{"unavailable": reason} for reason in reasons]
    assert all("forward" in m["contestants"]["gcattn"] for m in metrics["shapes"])


@pytest.mark.parametrize("is_foreign", [False, True])
@pytest.mark.slow
def test_an_error_while_timing_loses_no_other_number_and_ours_is_a_failure(is_foreign):
    broken = raising(KeyError("x"), is_foreign=is_foreign)
    metrics = bench_operator(SHAPES, [OURS["gcattn"], broken], CPU, **QUICK)
    for measured in metrics["shapes"]:
        assert measured["contestants"]["raising"]["unavailable"] == "KeyError: 'x'"
        assert "forward" in measured["contestants"]["gcattn"]
    label = "B1 L32 H2 G1 D8 K2 S8"
    ours = [] if is_foreign else [f"raising at {label}: KeyError: 'x'"]
    assert metrics["failures"][:1] == ours


def test_nothing_is_measured_when_an_operator_of_ours_fails_the_check():
    broken = replace(raising(KeyError("x")), computes="sliding_window")
    with pytest.raises(RedGateError, match="raising fails where it should be checked: KeyError"):
        bench_operator(SHAPES, [broken], CPU, **QUICK)


def test_a_forward_pass_that_fits_is_kept_when_the_backward_does_not():
    class NoMemory(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, dout):
            raise torch.OutOfMemoryError("CUDA out of memory")

    right = OURS["SDPA full causal"]

    def prepare(inputs):
        call = right.prepare(inputs)
        return PreparedCall(lambda: NoMemory.apply(call.run()), call.leaves, call.as_columns)

    contestant = replace(right, prepare=prepare)
    metrics = bench_operator(SHAPES[:1], [contestant], CPU, **QUICK)
    row = metrics["shapes"][0]["contestants"][right.name]
    assert row["forward"]["share_of_floor"] > 0
    assert row["forward_backward_unavailable"] == "out of memory"
    assert "forward_backward" not in row and metrics["failures"] == []


def test_gathered_chunks_beyond_a_grid_are_attended_in_pieces(monkeypatch):
    inputs = random_inputs(SHAPES[1], CPU, seed=0)
    contestant = OURS["gather + SDPA"]
    whole = contestant.prepare(inputs).run()
    monkeypatch.setattr("benchmarks.contestants.MAX_ROWS", 3)
    torch.testing.assert_close(contestant.prepare(inputs).run(), whole)


def test_a_foreign_operator_that_is_wrong_has_no_time():
    right = OURS["gcattn sliding window"]

    def prepare(inputs):
        call = right.prepare(inputs)
        return PreparedCall(lambda: 1.02 * call.run(), call.leaves, call.as_columns)

    foreign = replace(right, name="foreign", prepare=prepare, is_foreign=True)
    metrics = bench_operator(SHAPES, [foreign], CPU, **QUICK)
    row = metrics["shapes"][0]["contestants"]["foreign"]
    assert list(row) == ["unavailable"] and "foreign is wrong" in row["unavailable"]


@pytest.mark.slow
def test_who_is_too_slow_is_not_run_on_larger_shapes():
    metrics = bench_operator(SHAPES, [OURS["gcattn"]], CPU, slowest_ms=0.0, **QUICK)
    first, second = (m["contestants"]["gcattn"] for m in metrics["shapes"])
    assert "forward" in first
    assert second == {"unavailable": "not run: took above 0 ms at B1 L32 H2 G1 D8 K2 S8"}
    metrics = bench_operator(SHAPES[::-1], [OURS["gcattn"]], CPU, slowest_ms=0.0, **QUICK)
    assert all("forward" in m["contestants"]["gcattn"] for m in metrics["shapes"])


def test_nsa_gets_a_power_of_two_of_heads():
    assert [nsa_heads(h) for h in (1, 12, 16, 17, 32)] == [16, 16, 16, 32, 32]


@pytest.mark.slow
def test_a_foreign_operator_that_never_ends_loses_no_other_number():
    def endless(inputs):
        while True:
            time.sleep(0.01)

    foreign = Contestant("endless", "block_sparse", endless, is_foreign=True)
    began = time.perf_counter()
    metrics = bench_operator(SHAPES, [OURS["gcattn"], foreign], CPU, foreign_seconds=0.3, **QUICK)
    assert time.perf_counter() - began < 60
    first, second = (shape["contestants"] for shape in metrics["shapes"])
    assert first["endless"] == {"unavailable": "took above 0.3 s"}
    reason = "not run: took above 0.3 s at B1 L32 H2 G1 D8 K2 S8"
    assert second["endless"] == {"unavailable": reason}
    assert first["gcattn"]["forward"]["median_ms"] > 0
    assert metrics["failures"] == []


def test_a_time_limit_leaves_no_timer_behind():
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(0.2):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is before
    with pytest.raises(TimeLimitError), time_limit(0.05):
        while True:
            time.sleep(0.01)
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.slow
def test_an_end_of_the_process_loses_no_finished_shape():
    saved = []

    def save(metrics):
        saved.append([shape["label"] for shape in metrics["shapes"]])
        if len(saved) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench_operator(SHAPES, [OURS["gcattn"]], CPU, on_shape=save, **QUICK)
    labels = [shape.label() for shape in SHAPES]
    assert saved == [labels[:1], labels[:2]]
