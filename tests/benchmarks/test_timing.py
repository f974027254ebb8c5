"""Times: how often a call is repeated, and what is made of the repetitions."""

import time

import torch

from benchmarks import timing
from benchmarks.timing import Timing, peak_extra_mib, time_call

CPU = torch.device("cpu")


def test_timing_is_median_and_percentiles():
    found = Timing.of([float(x) for x in range(101)])
    assert (found.p20_ms, found.median_ms, found.p80_ms) == (20, 50, 80)
    assert found.repetitions == 101


def test_a_quick_call_is_repeated_for_the_time_asked_and_a_slow_one_ten_times():
    found = time_call(lambda: time.sleep(0.001), CPU, warmup_ms=0, measure_ms=40)
    assert 10 <= found.repetitions <= 40
    assert found.median_ms >= 1
    assert time_call(lambda: time.sleep(0.005), CPU, measure_ms=1).repetitions == 10


def test_on_a_gpu_the_cache_is_flushed_until_the_host_is_ahead(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("event")

        def elapsed_time(self, end):
            return 2.0

    class Buffer:
        def zero_(self):
            log.append("flush")
            time.sleep(0.001)

    monkeypatch.setattr(timing.torch.cuda, "Event", Event)
    monkeypatch.setattr(timing.torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(timing.torch, "empty", lambda *args, **kwargs: Buffer())

    def call():
        log.append("call")
        time.sleep(0.003)

    measured = timing._time_on_gpu(call, CPU, repetitions=5)
    assert (measured.median_ms, measured.repetitions) == (2.0, 5)
    assert measured.host_ms >= 3
    assert measured.wall_ms >= 3
    last = log[log.index("event") :]
    assert [x for x in last if x != "flush"] == ["event", "call", "event"] * 5
    # a launch takes three times as long as a flush: one flush alone would not hide it
    assert last.count("flush") / 4 >= 3
    # a call too slow to be repeated often has a wall time too
    assert timing._time_on_gpu(call, CPU, repetitions=2).wall_ms >= 3


def test_memory_is_not_known_on_a_cpu():
    assert peak_extra_mib(lambda: None, CPU) is None
