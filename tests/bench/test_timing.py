"""Times: how often a call is repeated, and what is made of the repetitions."""

import time

import torch

from gcattn.bench.timing import Timing, peak_extra_mib, time_call

CPU = torch.device("cpu")


def test_timing_is_median_and_percentiles():
    timing = Timing.of([float(x) for x in range(101)])
    assert (timing.p20_ms, timing.median_ms, timing.p80_ms) == (20, 50, 80)
    assert timing.repetitions == 101


def test_a_quick_call_is_repeated_for_the_time_asked_and_a_slow_one_ten_times():
    timing = time_call(lambda: time.sleep(0.001), CPU, warmup_ms=0, measure_ms=40)
    assert 10 <= timing.repetitions <= 40
    assert timing.median_ms >= 1
    assert time_call(lambda: time.sleep(0.005), CPU, measure_ms=1).repetitions == 10


def test_memory_is_not_known_on_a_cpu():
    assert peak_extra_mib(lambda: None, CPU) is None
