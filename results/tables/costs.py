"""The tables of times and memory."""

from typing import Any

from results.collect import Line
from results.tables.study import NOT_MEASURED, Table, scores, source, table, values

# contestants of the table of the operator by length
BY_LENGTH = ("gcattn", "gather + SDPA", "SDPA full causal", "gcattn sliding window")
WIDER = "sliding window, +2 layers"


def bench_op() -> str:
    """Return milliseconds and memory of the operator and its peers at the fixed shapes."""
    lines = scores("operator", comparison="shapes")
    rows = []
    for shape in values(lines, "shape")[:3]:
        times = _times([line for line in lines if line["shape"] == shape])
        for name, parts in times.items():
            if "forward + backward" in parts:
                both = parts["forward + backward"]
                forward = f"{parts['forward']['score']:.3f}"
                rows.append(
                    [shape, name, forward, f"{both['score']:.3f}", f"{both['peak_mib']:,.0f}"]
                )
    columns = ["shape", "operator", "forward, ms", "forward + backward, ms"]
    made = table([*columns, "memory beyond inputs, MiB"], rows)
    return made + source("operator", lines)


def bench_op_lengths() -> str:
    """Return milliseconds, forward and backward, of the operator and its peers by length."""
    lines = scores("operator", comparison="lengths", task="forward + backward")
    other_shapes = values(lines, "shape")[1:3]
    # of the fixed shapes the first is also a point of the series, which comes later
    series = {
        (line["length"], line["method"]): line
        for line in lines
        if line["shape"] not in other_shapes
    }
    rows = []
    for length in sorted({length for length, _ in series}):
        times = [f"{series[length, name]['score']:.3f}" for name in BY_LENGTH]
        rows.append([f"{length:,}", *times, f"{series[length, 'gcattn']['peak_mib']:,.0f}"])
    columns = ["length", *BY_LENGTH, "gcattn, MiB beyond inputs"]
    return table(columns, rows) + source("operator", lines)


def bench_extremes() -> str:
    """Return the operators at unusual shapes, each beside what it is held to."""
    lines = scores("extremes")
    rows: list[list[Any]] = []
    for line in scores("extremes", task="scan"):
        shape = f"{line['queries']} queries, {line['length']:,} landmarks"
        ratio = line["score"] / line["read_ms"]
        held = f"{line['read_ms']:.3g}, to read them once"
        rows.append(["scan", shape, f"{line['score']:.3g}", held, f"{ratio:.2f}"])
    reads = scores("extremes", task="few queries")
    for ours, other in zip(reads[::2], reads[1::2], strict=True):
        shape = f"{ours['length']} slots, pool on the {ours['pool']}"
        held = f"{other['score']:.3g}, copied together first"
        ratio = ours["score"] / other["score"]
        rows.append(["few queries", shape, f"{ours['score']:.3g}", held, f"{ratio:.2f}"])
    crowded = scores("extremes", task="forward + backward")
    even = crowded[0]["score"]
    for line in crowded:
        held = f"{even:.3g}, read uniformly"
        shape, ratio = f"readers: {line['readers']}", line["score"] / even
        rows.append(["forward + backward", shape, f"{line['score']:.3g}", held, f"{ratio:.2f}"])
    columns = ["what", "shape", "ms", "beside, ms", "ratio"]
    return table(columns, rows) + source("extremes", lines)


def bench_model() -> str:
    """Return tokens per second of prefill by prompt length."""
    lines = [line for line in scores("prefill") if "score" in line]
    rows = [
        [
            f"`{line['preset']}`, {line['method']}",
            f"{line['length']:,}",
            f"{line['score']:,.1f}",
            f"{line['tokens_per_second']:,.0f}",
            f"{line['peak_mib']:,.0f}",
        ]
        for line in lines
    ]
    columns = ["model", "prompt, tokens", "ms", "tokens/s", "MiB beyond weights"]
    return table(columns, rows) + source("prefill", lines)


def training_steps(comparison: str) -> str:
    """Return training steps of DRTs beside Transformers without retrieval."""
    lines = scores("training_steps", comparison=comparison)
    rows = []
    for line in lines:
        (wider,) = (
            x["score"]
            for x in lines
            if (x["method"], x["preset"], x["length"]) == (WIDER, line["preset"], line["length"])
        )
        rows.append(
            [
                f"`{line['preset']}`, {line['method']}",
                f"{line['rows']} × {line['tokens_per_row']:,}",
                f"{line['score']:.1f}",
                f"{line['tokens_per_second']:,.0f}",
                f"{line['mfu_of_data_sheet']:.1%}",
                f"{line['peak_mib'] / 1024:.1f}",
                f"{line['score'] / wider:.3f}",
            ]
        )
    columns = ["model", "rows × tokens", "ms per step", "tokens/s", "MFU", "peak, GiB"]
    return table([*columns, "over +2 layers"], rows) + source("training_steps", lines)


def compilation() -> str:
    """Return when training begins."""
    lines = scores("training_steps", comparison="first step")
    rows = [
        [
            f"`{x['preset']}`, {x['method']}",
            f"{x['rows']} × {x['length']:,}",
            f"{x['score']:.0f}",
            x["graphs"],
            x["graph_breaks"],
            f"{x['first_evaluation_seconds']:.2f}",
        ]
        for x in lines
    ]
    columns = ["model, compiled", "rows × tokens", "first step, s", "graphs", "graph breaks"]
    made = table([*columns, "first evaluation, s"], rows)
    return made + source("training_steps", lines)


def several_gpus() -> str:
    """Return how much faster several GPUs train."""
    lines = scores("training_steps", comparison="devices")
    rows = [
        [
            f"`{x['preset']}`, {x['method']}",
            x["devices"],
            f"{x['rows']} × {x['length']:,}",
            f"{x['tokens_per_second']:,.0f}",
            f"{x['times_one']:.2f}" if "times_one" in x else "1",
            f"{x['first_step_s']:.0f}",
        ]
        for x in lines
    ]
    columns = ["model, compiled", "GPUs", "rows × tokens, each", "tokens/s", "times one"]
    return table([*columns, "first step, s"], rows) + source("training_steps", lines)


def bench_decode(comparison: str) -> str:
    """Return milliseconds per generated token, and where the past lies."""
    lines = scores("decoding", comparison=comparison)
    rows = []
    for line in lines:
        # full attention closes no chunks, and who calls generate() does not see it
        closing = line.get("closing_median_ms")
        rows.append(
            [
                f"`{line['preset']}`, {line['method']}",
                f"{line['length']:,}",
                f"{line['score']:.2f}",
                f"{line['mean_tokens_per_second']:,.0f}",
                "–" if closing is None else f"{closing:.1f}",
                *(f"{line[f'{place}_bytes'] / 2**20:,.0f}" for place in ("device", "host")),
            ]
        )
    columns = ["model", "context, tokens", "ms per token, median", "tokens/s, mean"]
    columns += ["ms per token that closes a chunk"]
    made = table([*columns, "MiB on the device", "MiB on the host"], rows)
    return made + source("decoding", lines)


def bench_memory(comparison: str) -> str:
    """Return what a token costs on a saved memory, by model, tier and length."""
    lines = scores("memory", comparison=comparison, task="decoded token")
    first_tokens = ["first_token"]
    columns = ["model", "tier", "memory, tokens", "first token, ms"]
    if any("uncached_first_token_ms" in line for line in lines):
        first_tokens.append("uncached_first_token")
        columns.append("files not cached, ms")
    rows = [
        [
            f"`{line['preset']}`",
            line["method"],
            f"{line['length']:,}",
            *(_first_token(line, name) for name in first_tokens),
            f"{line['score']:.2f}",
            f"{line['p99_ms']:.0f}",
            f"{line['fetch_ms']:.1f}",
            *(f"{line[f'{place}_bytes'] / 2**20:,.0f}" for place in ("device", "host", "disk")),
        ]
        for line in lines
    ]
    columns += ["median token, ms", "99th percentile, ms", "fetch of 8 chunks, ms", "MiB, device"]
    return table([*columns, "host", "disk"], rows) + source("memory", lines)


def _first_token(line: Line, name: str) -> str:
    """Write the median of first tokens, with the 20th and 90th percentile where there are some."""
    if f"{name}_ms" not in line:
        return NOT_MEASURED
    ends = [line[f"{name}_{end}_ms"] for end in ("p20", "p90") if f"{name}_{end}_ms" in line]
    spread = f" ({'–'.join(f'{end:,.0f}' for end in ends)})" if line.get("opens", 1) > 1 else ""
    return f"{line[f'{name}_ms']:,.0f}{spread}"


def building() -> str:
    """Return how fast one GPU makes chunks."""
    lines = scores("memory", comparison="memory", task="building")
    rows = [[f"`{x['preset']}`", f"{x['length']:,}", f"{x['score']:,.0f}"] for x in lines]
    return table(["model", "tokens read", "tokens/s"], rows) + source("memory", lines)


def operator_wall() -> str:
    """Return device, host and wall time of one layer, forward and backward, by length."""
    lines = scores("operator", comparison="wall", task="forward + backward")
    rows = [
        [
            f"{line['length']:,}",
            line["method"],
            *(
                f"{line[field]:.2f}" if field in line else "–"
                for field in ("score", "host_ms", "wall_ms")
            ),
        ]
        for line in lines
        if "score" in line
    ]
    columns = ["length", "operator", "device, ms", "host, ms", "in a row, ms"]
    return table(columns, rows) + source("operator", lines)


def _times(lines: list[Line]) -> dict[str, dict[str, Line]]:
    """Return the lines with a time, by contestant and pass."""
    found: dict[str, dict[str, Line]] = {}
    for line in lines:
        if "score" in line:
            found.setdefault(line["method"], {})[line["task"]] = line
    return found


TABLES: dict[str, tuple[str, Table]] = {
    "bench-op": ("operator", bench_op),
    "bench-op-lengths": ("operator", bench_op_lengths),
    "bench-op-wall": ("operator", operator_wall),
    "bench-compile": ("training_steps", compilation),
    "bench-memory": ("memory", lambda: bench_memory("memory")),
    "bench-memory-cpu": ("memory", lambda: bench_memory("cpu")),
    "bench-building": ("memory", building),
    "bench-extremes": ("extremes", bench_extremes),
    "bench-model": ("prefill", bench_model),
    "bench-devices": ("training_steps", several_gpus),
    "bench-train": ("training_steps", lambda: training_steps("drt_128m")),
    "bench-train-34m": ("training_steps", lambda: training_steps("drt_34m")),
    "bench-train-growth": ("training_steps", lambda: training_steps("growth")),
    "bench-decode": ("decoding", lambda: bench_decode("decoding")),
    "bench-decode-cpu": ("decoding", lambda: bench_decode("cpu")),
    "bench-decode-cpu-xeon": ("decoding", lambda: bench_decode("cpu, Xeon")),
    "bench-decode-batch": ("decoding", lambda: bench_decode("32 rows")),
}
