"""Tables of the benchmarks for the terminal, made from their results."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from gcattn.evals.lengths import format_length


def operator_table(metrics: dict[str, Any]) -> Table:
    """Return times, memory, rates and shares of the floor, a line for each shape and contestant."""
    table = _table(
        "shape",
        "contestant",
        "forward ms",
        "forward+backward ms",
        "in a row ms",
        "peak MiB",
        "TFLOP/s",
        "share of floor",
    )
    nowhere = _unavailable_everywhere(metrics["shapes"])
    for measured in metrics["shapes"]:
        for name, row in measured["contestants"].items():
            if name in nowhere:
                continue
            if "unavailable" in row:
                table.add_row(measured["label"], name, row["unavailable"])
                continue
            parts = [row.get(part, {}) for part in ("forward", "forward_backward")]
            table.add_row(
                measured["label"],
                name,
                _spread(parts[0]),
                _spread(parts[1]) or row["forward_backward_unavailable"],
                " / ".join(_number(part.get("wall_ms"), ".3g") for part in parts),
                _number(row.get("peak_mib"), ",.0f"),
                " / ".join(_number(part.get("tflop_per_s"), ".3g") for part in parts),
                " / ".join(_number(part.get("share_of_floor"), ".0%") for part in parts),
            )
        table.add_section()
    if nowhere:
        table.caption = "; ".join(f"{name}: {reason}" for name, reason in nowhere.items())
    return table


def prefill_table(metrics: dict[str, Any]) -> Table:
    """Return speed and memory of prefill."""
    table = _table("preset", "model", "prompt", "ms", "tokens/s", "peak MiB")
    for preset, models in metrics.items():
        for name, model in models.items():
            for length, row in model["lengths"].items():
                table.add_row(
                    preset,
                    name,
                    format_length(int(length)),
                    row.get("unavailable") or _spread(row),
                    _number(row.get("tokens_per_second"), ",.0f"),
                    _number(row.get("peak_mib"), ",.0f"),
                )
        table.add_section()
    return table


def training_table(metrics: dict[str, Any]) -> Table:
    """Return speed, utilisation and memory of training steps."""
    table = _table(
        "preset",
        "rows",
        "model",
        "ms per step",
        "tokens/s",
        "MFU of data sheet",
        "MFU of measured matmul",
        "peak MiB",
        "over the windows'",
    )
    for preset, measured in metrics["presets"].items():
        for by_length in measured["lengths"].values():
            for name, row in by_length["models"].items():
                over = row.get("step_time_over", {})
                table.add_row(
                    preset,
                    f"{by_length['rows']} x {by_length['tokens_per_row']:,}",
                    name,
                    row.get("unavailable") or _spread(row),
                    _number(row.get("tokens_per_second"), ",.0f"),
                    _number(row.get("mfu_of_data_sheet"), ".1%"),
                    _number(row.get("mfu_of_measured_matmul"), ".1%"),
                    _number(row.get("peak_mib"), ",.0f"),
                    ", ".join(f"{ratio:.3f}x" for ratio in over.values()),
                )
            table.add_section()
    return table


def decoding_table(metrics: dict[str, Any]) -> Table:
    """Return the time of a token and where the past is."""
    table = _table(
        "preset",
        "past",
        "context",
        "ms per token",
        "90th percentile",
        "closing a chunk",
        "MiB on device",
        "MiB on host",
    )
    for preset, ways in metrics.items():
        for name, by_length in ways.items():
            for length, row in by_length.items():
                held = row.get("bytes", {})
                table.add_row(
                    preset,
                    name,
                    format_length(int(length)),
                    row.get("unavailable") or f"{row['median_ms']:.3g}",
                    _number(row.get("p90_ms"), ".3g"),
                    _number(row.get("closing_median_ms"), ".3g"),
                    *(
                        _number(held[place] / 2**20 if held else None, ",.0f")
                        for place in ("device", "host")
                    ),
                )
        table.add_section()
    return table


def memory_table(metrics: dict[str, Any]) -> Table:
    """Return the times and bytes of saved memories; of first tokens also p20 and p90."""
    places = ("device", "host", "disk")
    table = _table(
        "preset",
        "tier",
        "tokens",
        "first token, ms",
        "uncached",
        "ms per token",
        "99th percentile",
        "fetch, ms",
        *(f"MiB on {place}" for place in places),
    )
    for preset, measured in metrics.items():
        for tier, rows in measured["tiers"].items():
            for length, row in rows.items():
                held = row.get("bytes", {})
                table.add_row(
                    preset,
                    tier,
                    format_length(int(length)),
                    row.get("unavailable") or _first_token(row, "first_token"),
                    _first_token(row, "uncached_first_token"),
                    _number(row.get("median_ms"), ".3g"),
                    _number(row.get("p99_ms"), ".3g"),
                    _number(row.get("fetch_ms"), ".3g"),
                    *(
                        _number(held[place] / 2**20 if place in held else None, ",.0f")
                        for place in places
                    ),
                )
        rate = measured["building"]["tokens_per_second"]
        table.add_row(preset, "building", f"{rate:,.0f} tokens/s", *[""] * 8)
        table.add_section()
    return table


def extremes_table(metrics: dict[str, Any]) -> Table:
    """Return the unusual shapes, each with what it is held to."""
    table = _table("what", "shape", "ms", "held to", "takes")
    for row in metrics["scan"]:
        table.add_row(
            "scan",
            f"{row['queries']} queries, {row['landmarks']:,} landmarks",
            row.get("unavailable") or _spread(row),
            f"{_number(row.get('read_ms'), '.3g')} ms: reading them once",
            "" if "unavailable" in row else f"{row['median_ms'] / row['read_ms']:.2f}x",
        )
    table.add_section()
    for row in metrics["few_queries"]:
        ways = row["ways"]
        table.add_row(
            "few queries",
            f"{row['slots']} slots, pool on the {row['pool']}",
            _spread(ways["in place"]),
            f"{_number(ways['gathered first']['median_ms'], '.3g')} ms: gathered first",
            f"{ways['in place']['median_ms'] / ways['gathered first']['median_ms']:.2f}x",
        )
    table.add_section()
    even = metrics["popularity"][0]["forward_backward"]["median_ms"]
    for row in metrics["popularity"]:
        both = row["forward_backward"]
        table.add_row(
            "forward + backward",
            f"readers: {row['readers']}",
            _spread(both),
            f"{even:.3g} ms: read uniformly",
            f"{both['median_ms'] / even:.2f}x",
        )
    return table


def compilation_table(metrics: dict[str, Any]) -> Table:
    """Return the first step, later steps and graphs of each way to compile."""
    table = _table(
        "way", "first step s", "ms per step", "tokens/s", "first evaluation s", "graphs", "peak MiB"
    )
    for way, row in metrics.items():
        if "unavailable" in row:
            table.add_row(way, row["unavailable"])
            continue
        table.add_row(
            way,
            f"{row['first_step_seconds']:.2f}",
            f"{row['median_ms']:.4g}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['first_evaluation_seconds']:.2f}",
            str(row["graphs"]),
            _number(row["peak_mib"], ",.0f"),
        )
    return table


def devices_table(metrics: dict[str, Any]) -> Table:
    """Return how fast each way of sharing trains, and how much faster than one device."""
    table = _table("way", "devices", "tokens/s", "p20", "p80", "times one", "first step s")
    for way, row in metrics.items():
        if "unavailable" in row:
            table.add_row(way, row["unavailable"])
            continue
        speeds = ("tokens_per_second", "p20_tokens_per_second", "p80_tokens_per_second")
        table.add_row(
            way,
            str(row["devices"]),
            *(f"{row[key]:,.0f}" for key in speeds),
            _number(row.get("times_one"), ".2f"),
            f"{row['first_step_s']:.1f}",
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(*columns)
    for number, column in enumerate(table.columns):
        column.no_wrap = True
        column.justify = "left" if number < 2 else "right"
    return table


def _unavailable_everywhere(shapes: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return who took part in no shape, and why not in the first."""
    return {
        name: first["unavailable"]
        for name, first in shapes[0]["contestants"].items()
        if all("unavailable" in shape["contestants"][name] for shape in shapes)
    }


def _spread(timing: dict[str, Any]) -> str:
    if "median_ms" not in timing:
        return ""
    return f"{timing['median_ms']:.3g} ({timing['p20_ms']:.3g}-{timing['p80_ms']:.3g})"


def _first_token(row: dict[str, Any], name: str) -> str:
    if f"{name}_ms" not in row:
        return "-"
    low, high = (f"{row[f'{name}_{end}_ms']:,.0f}" for end in ("p20", "p90"))
    return f"{row[f'{name}_ms']:,.0f} ({low}-{high})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
