"""Time and memory of a call: warm-up, a cold L2 cache, median and spread.

On a GPU the time is that between two CUDA events, so it is the device's alone: before each
repetition the device is kept busy for as long as the host needs to launch the call. What the host
needs is reported beside it, and what a user waits for who makes one call after the other.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

# larger than the L2 cache of any GPU
FLUSH_BYTES = 256 * 2**20
MAX_REPETITIONS = 1000
# times of the host scatter by a factor of two
HOST_REPETITIONS = 50
# a call that is slower is repeated three times and not warmed up again
SLOW_MS = 500.0
_MAX_FLUSHES = 256


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a call over its repetitions."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    repetitions: int
    host_ms: float | None = None  # that the host needs to launch the call; None where not measured
    wall_ms: float | None = None  # of one of many calls in a row; None where not measured

    @classmethod
    def of(
        cls,
        milliseconds: Sequence[float],
        host_ms: float | None = None,
        wall_ms: float | None = None,
    ) -> "Timing":
        """Summarise the repetitions."""
        low, middle, high = (float(x) for x in np.percentile(milliseconds, [20, 50, 80]))
        return cls(middle, low, high, len(milliseconds), host_ms, wall_ms)

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the fields by name."""
        return asdict(self)


def time_call(
    call: Callable[[], object],
    device: torch.device,
    *,
    warmup_ms: float = 25.0,
    measure_ms: float = 100.0,
) -> Timing:
    """Time a call on the device that it computes on.

    Args:
        call: What is measured; its result is dropped.
        device: CPU or CUDA.
        warmup_ms: Repeat so long before measuring; a first call, which may compile, comes before.
        measure_ms: Repeat at least so long, and at least ten times (three where calls are slow).
    """
    call()
    estimate = wall_milliseconds(call, device)
    for _ in range(0 if estimate > SLOW_MS else math.ceil(warmup_ms / estimate)):
        call()
    least = 3 if estimate > SLOW_MS else 10
    repetitions = min(max(least, math.ceil(measure_ms / estimate)), MAX_REPETITIONS)
    if device.type == "cuda":
        return _time_on_gpu(call, device, repetitions)
    return Timing.of([wall_milliseconds(call, device) for _ in range(repetitions)])


def peak_extra_mib(call: Callable[[], object], device: torch.device) -> float | None:
    """Return how much more memory than before a call has at its peak; None without a GPU."""
    if device.type != "cuda":
        return None
    release_memory(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def release_memory(device: torch.device) -> None:
    """Give back what nobody refers to any more, so that the next measurement starts clean."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def wait_for(device: torch.device) -> None:
    """Wait until everything asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wall_milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the time of one call, from an idle device to an idle device."""
    wait_for(device)
    began = time.perf_counter()
    call()
    wait_for(device)
    return max((time.perf_counter() - began) * 1e3, 1e-4)


def _time_on_gpu(call: Callable[[], object], device: torch.device, repetitions: int) -> Timing:
    buffer = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)
    flush_ms = min(wall_milliseconds(buffer.zero_, device) for _ in range(5))
    host = []
    # a slow call hides its launch by itself
    for _ in range(min(repetitions, HOST_REPETITIONS) if repetitions > 3 else 0):
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        call()
        host.append((time.perf_counter() - began) * 1e3)
    host_ms = float(np.median(host)) if host else None

    def call_in_a_row() -> None:
        for _ in range(repetitions):
            call()

    wall_ms = wall_milliseconds(call_in_a_row, device) / repetitions
    # while the device flushes, the host gets ahead of it, also when it is slower than it was
    flushes = min(1 + math.ceil(2 * max(host, default=0.0) / flush_ms), _MAX_FLUSHES)
    starts, ends = (
        [torch.cuda.Event(enable_timing=True) for _ in range(repetitions)] for _ in range(2)
    )
    for start, end in zip(starts, ends, strict=True):
        for _ in range(flushes):
            buffer.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize(device)
    times = [start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)]
    return Timing.of(times, host_ms, wall_ms)
