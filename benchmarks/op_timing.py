"""The operator beside its peers, shape by shape, behind the correctness gate."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.ceilings import measure_ceilings
from benchmarks.contestant import Contestant, UnavailableError
from benchmarks.costs import FORWARD_BACKWARD, Ceilings, floor_ms, least_bytes
from benchmarks.gate import RedGateError, check_contestant, gate_shape
from benchmarks.inputs import OperatorInputs, random_inputs
from benchmarks.shapes import OperatorShape
from benchmarks.time_limit import TimeLimitError, time_limit
from benchmarks.timing import Timing, peak_extra_mib, release_memory, time_call

OUT_OF_MEMORY = "out of memory"
FAILED = "failed"
TOO_LONG = "took above"
GATED = ("grouped_cross_attention", "sliding_window")


def bench_operator(
    shapes: Sequence[OperatorShape],
    contestants: Sequence[Contestant],
    device: torch.device,
    *,
    seed: int = 0,
    warmup_ms: float = 25.0,
    measure_ms: float = 100.0,
    slowest_ms: float = 5000.0,
    foreign_seconds: float = 120.0,
    on_progress: Callable[[str], None] = lambda _: None,
    on_shape: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """Check every contestant, then time each on every shape.

    Args:
        shapes: Of one dtype; each contestant goes through them in this order.
        contestants: Who takes part.
        device: CPU or CUDA.
        seed: Of all random numbers.
        warmup_ms: See `time_call`.
        measure_ms: See `time_call`.
        slowest_ms: A contestant whose forward and backward take longer is not run on larger shapes.
        foreign_seconds: Another project's contestant that takes longer at a shape, to compile or to
            run, is left out from there on.
        on_progress: Told what begins.
        on_shape: Given the result so far after every shape, so that an end of the process loses no
            shape that was finished.

    Returns:
        Ceilings of the device, errors found by the gate, and for each shape and contestant the
        times, memory, rates and share of the floor, or why there are none. What our own contestants
        raised while they were timed is listed in "failures".

    Raises:
        RedGateError: An operator is wrong; nothing has been measured then.
    """
    # who takes no further part, and why
    excluded: dict[str, str] = {}
    gate = _pass_gate(shapes, contestants, device, seed, excluded, foreign_seconds, on_progress)
    on_progress("ceilings of the device")
    ceilings = measure_ceilings(device, shapes[0].torch_dtype)
    measured: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {
        "ceilings": {
            "copy_tb_per_s": ceilings.bytes_per_second / 1e12,
            "matmul_tflop_per_s": ceilings.flops_per_second / 1e12,
        },
        "gate": gate,
        "shapes": measured,
        "failures": [],
    }
    # from which size on a contestant is not run, and why
    limits: dict[str, tuple[int, str]] = {}
    timer = (warmup_ms, measure_ms)
    for shape in shapes:
        rows: dict[str, Any] = {}
        for contestant in contestants:
            name = contestant.name
            on_progress(f"{shape.label()}: {name}")
            if name in excluded:
                rows[name] = {"unavailable": excluded[name]}
                continue
            if name in limits and _size(shape) > limits[name][0]:
                rows[name] = {"unavailable": limits[name][1]}
                continue
            limit = foreign_seconds if contestant.is_foreign else None
            rows[name] = _measure(contestant, shape, device, seed, timer, ceilings, limit)
            took = rows[name].get("forward_backward", {}).get("median_ms", 0.0)
            if took > slowest_ms:
                reason = f"not run: {TOO_LONG} {slowest_ms:g} ms at {shape.label()}"
                limits[name] = _size(shape), reason
            elif rows[name].get("unavailable", "").startswith(TOO_LONG):
                excluded[name] = f"not run: {rows[name]['unavailable']} at {shape.label()}"
            elif rows[name].get("unavailable") == OUT_OF_MEMORY:
                limits[name] = _size(shape), f"not run: {OUT_OF_MEMORY} at {shape.label()}"
        measured.append({"shape": shape.as_dict(), "label": shape.label(), "contestants": rows})
        metrics["failures"] += [
            f"{c.name} at {shape.label()}: {rows[c.name][FAILED]}"
            for c in contestants
            if not c.is_foreign and FAILED in rows[c.name]
        ]
        on_shape(metrics)
    return metrics


def _size(shape: OperatorShape) -> int:
    """Return the number of query values."""
    return shape.batch * shape.length * shape.heads * shape.head_dim


def _pass_gate(
    shapes: Sequence[OperatorShape],
    contestants: Sequence[Contestant],
    device: torch.device,
    seed: int,
    excluded: dict[str, str],
    foreign_seconds: float,
    on_progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Check each contestant on every kind of shape; lengths that look alike are checked once.

    One that can't be checked is put into `excluded`: nothing unchecked is timed.
    """
    passed = []
    for small in dict.fromkeys(gate_shape(shape) for shape in shapes):
        errors = {}
        for contestant in contestants:
            if contestant.computes not in GATED or contestant.name in excluded:
                continue
            on_progress(f"{small.label()}: checking {contestant.name}")
            # other numbers than those that are timed
            check = partial(check_contestant, contestant, small, device, seed + 1)
            try:
                found = _attempt(check, foreign_seconds if contestant.is_foreign else None)
            except RedGateError as error:
                if not contestant.is_foreign:
                    raise
                found = {"unavailable": str(error)}
            if FAILED in found and not contestant.is_foreign:
                raise RedGateError(
                    f"{contestant.name} fails where it should be checked: {found[FAILED]}; nothing "
                    "is measured."
                )
            if "unavailable" in found:
                excluded[contestant.name] = found["unavailable"]
            else:
                errors[contestant.name] = found
            release_memory(device)
        passed.append({"label": small.label(), "relative_errors": errors})
    return passed


def _measure(
    contestant: Contestant,
    shape: OperatorShape,
    device: torch.device,
    seed: int,
    timer: tuple[float, float],
    ceilings: Ceilings,
    limit: float | None,
) -> dict[str, Any]:
    def measure() -> dict[str, Any]:
        inputs = random_inputs(shape, device, seed)
        return _time_both(contestant, inputs, device, timer)

    row = _attempt(measure, limit)
    release_memory(device)
    if contestant.flops is None or "unavailable" in row:
        return row
    for part, passes in (("forward", 1.0), ("forward_backward", FORWARD_BACKWARD)):
        if part not in row:
            continue
        num_flops = passes * contestant.flops(shape)
        seconds = row[part]["median_ms"] / 1e3
        num_bytes = least_bytes(shape, backward=part != "forward")
        floor = floor_ms(num_flops, num_bytes, ceilings)
        row[part]["tflop_per_s"] = num_flops / seconds / 1e12
        row[part]["floor_ms"] = floor
        row[part]["share_of_floor"] = floor / row[part]["median_ms"]
    return row


def _time_both(
    contestant: Contestant,
    inputs: OperatorInputs,
    device: torch.device,
    timer: tuple[float, float],
) -> dict[str, Any]:
    warmup_ms, measure_ms = timer
    call = contestant.prepare(inputs)
    leaves = list(call.leaves.values())

    @torch.no_grad()
    def forward() -> object:
        return call.run()

    def timed(function: Callable[[], object]) -> Timing:
        return time_call(function, device, warmup_ms=warmup_ms, measure_ms=measure_ms)

    row: dict[str, Any] = {"forward": timed(forward).as_dict()}
    with torch.no_grad():
        dout = torch.randn_like(call.run())

    def forward_backward() -> object:
        return torch.autograd.grad(call.run(), leaves, dout)

    def train() -> dict[str, Any]:
        both = timed(forward_backward).as_dict()
        return {"forward_backward": both, "peak_mib": peak_extra_mib(forward_backward, device)}

    trained = _attempt(train)
    if "unavailable" in trained:
        # the forward pass alone may still fit
        row["forward_backward_unavailable"] = trained.pop("unavailable")
    return row | trained


def _attempt(function: Callable[[], Any], seconds: float | None = None) -> Any:
    """Return the result, or why there is none: one failure must not lose an hour of numbers."""
    try:
        with time_limit(seconds):
            return function()
    except TimeLimitError:
        return {"unavailable": f"{TOO_LONG} {seconds:g} s"}
    except UnavailableError as error:
        return {"unavailable": str(error)}
    except torch.OutOfMemoryError:
        return {"unavailable": OUT_OF_MEMORY}
    except RedGateError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return {"unavailable": reason, FAILED: reason}
