"""Pictures of the benchmarks over the length, both axes logarithmic, drawn from their results."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gcattn.evals.lengths import format_length
from gcattn.figures import BLUE, INK, ORANGE, make_plain, new_figure, save

# ours first and strongest; the others keep their colour from picture to picture
COLOURS = {
    "gcattn": BLUE,
    "gcattn joint": "#4f7fd1",
    "gcattn reference": "#8fb8dc",
    "gather + SDPA": ORANGE,
    "SDPA full causal": "#b3372f",
    "gcattn sliding window": "#2f8f5b",
    "flex sliding window": "#8cc9a4",
    "NSA (fla)": "#7d5ba6",
    "MoBA (fla)": "#c06c9c",
    "sliding window": "#8cc9a4",
    "sliding window, +2 layers": "#2f8f5b",
    "gcattn, device memory": BLUE,
    "gcattn, host memory": ORANGE,
    "full attention (SDPA)": "#b3372f",
}
OTHER = "#4d5661"
# ends of names that say how something is called: its colour, with a broken line
WAYS = (", generate()", ", compiled, static cache")
# DRTs, those with most reading layers first
READERS = (BLUE, "#7d5ba6", "#c06c9c", "#8fb8dc")
# the top of an axis is at least so many times its bottom
LEAST_RANGE = 5.0

# a point: value, lower and upper end
Point = tuple[float, float, float]
Read = Callable[[dict[str, Any]], Point | None]


def plot_operator(metrics: dict[str, Any], lengths: Sequence[int], file: str | Path) -> None:
    """Draw times and peak memory of every contestant over the lengths.

    Args:
        metrics: Of `bench_operator`.
        lengths: Those of the last shapes; shapes before them are not part of the series.
        file: PNG.
    """
    shapes = metrics["shapes"][-len(lengths) :]
    names = list(shapes[0]["contestants"])
    parts: list[tuple[str, str, Read]] = [
        ("forward", "milliseconds", _milliseconds("forward")),
        ("forward + backward", "milliseconds", _milliseconds("forward_backward")),
        ("forward + backward, peak beyond inputs", "MiB", _value("peak_mib")),
    ]
    rows = {name: [shape["contestants"][name] for shape in shapes] for name in names}
    parts = [p for p in parts if _is_measured(p[2], rows.values())]
    figure = new_figure(4.2 * len(parts), 4.6)
    panels = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, (title, unit, read) in zip(panels, parts, strict=True):
        for name in names:
            points = [read(row) for row in rows[name]]
            _draw_curve(axes, name, _colour(name, names), lengths, points)
        _label(axes, title, "columns", unit, lengths)
    size = shapes[0]["shape"]
    figure.suptitle(
        f"B{size['batch']} H{size['heads']} G{size['kv_heads']} D{size['head_dim']} "
        f"K{size['top_k']} S{size['chunk_size']} W{size['window']}, {size['dtype']}; "
        "median and 20th to 80th percentile",
        fontsize=10,
        color=INK,
    )
    _legend_below(figure, panels)
    save(figure, file)


def plot_anchors(metrics: dict[str, Any], count: int, file: str | Path) -> None:
    """Draw forward, and forward with backward, of the first `count` shapes as bars."""
    shapes = metrics["shapes"][:count]
    figure = new_figure(4.4 * count + 1.2, 4.4)
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    present = {n for s in shapes for n, row in s["contestants"].items() if "forward" in row}
    for axes, shape in zip(panels, shapes, strict=True):
        names = [n for n in reversed(shape["contestants"]) if n in present]
        for place, name in enumerate(names):
            row, colour = shape["contestants"][name], _colour(name, names)
            for part, offset, alpha in (("forward", 0.2, 1.0), ("forward_backward", -0.2, 0.5)):
                if part not in row:
                    continue
                median = row[part]["median_ms"]
                axes.barh(place + offset, median, height=0.38, color=colour, alpha=alpha)
                _write_behind(axes, (median, place + offset), f"{median:.3g}")
        axes.set_yticks(range(len(names)), names)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xlim(low / 2, high * 1.8)  # room for the shortest bar and for the numbers
        _label_plainly(axes.xaxis, few=False)
        axes.set_xlabel("milliseconds", color=INK)
        axes.set_title(shape["label"], fontsize=10, color=INK)
        make_plain(axes, "x")
    figure.suptitle(
        "upper bar: forward, lower bar: forward + backward (medians)", fontsize=10, color=INK
    )
    save(figure, file)


def plot_prefill(metrics: dict[str, Any], file: str | Path) -> None:
    """Draw tokens per second and peak memory of prefill, a column for each preset."""
    parts: list[tuple[str, Read]] = [
        ("tokens per second", _value("tokens_per_second")),
        ("peak MiB beyond the weights", _value("peak_mib")),
    ]
    _draw_presets(
        {
            preset: {name: model["lengths"] for name, model in models.items()}
            for preset, models in metrics.items()
        },
        parts,
        "prefill",
        "prompt, tokens",
        file,
    )


def plot_decoding(metrics: dict[str, Any], file: str | Path) -> None:
    """Draw milliseconds per token and bytes on the device, a column for each preset."""

    def token(row: dict[str, Any]) -> Point | None:
        if "unavailable" in row:
            return None
        return row["median_ms"], row["p20_ms"], row["p90_ms"]

    def held(row: dict[str, Any]) -> Point | None:
        if "unavailable" in row:
            return None
        return (row["bytes"]["device"] / 2**20,) * 3

    parts: list[tuple[str, Read]] = [
        ("milliseconds per token", token),
        ("MiB of the past on the device", held),
    ]
    _draw_presets(metrics, parts, "decoding", "context, tokens", file)


def plot_training(metrics: dict[str, Any], file: str | Path) -> None:
    """Draw the time per token and the peak memory of a step, a column for each preset."""

    def per_token(row: dict[str, Any]) -> Point | None:
        if "unavailable" in row:
            return None
        tokens = row["tokens_per_second"] * row["median_ms"] / 1e3
        low, middle, high = (1e3 * row[f"{p}_ms"] / tokens for p in ("p20", "median", "p80"))
        return middle, low, high

    series: dict[str, dict[str, dict[str, Any]]] = {}
    for preset, measured in metrics["presets"].items():
        names = next(iter(measured["lengths"].values()))["models"]
        series[preset] = {
            name: {L: by_length["models"][name] for L, by_length in measured["lengths"].items()}
            for name in names
        }
    parts: list[tuple[str, Read]] = [
        ("microseconds per token", per_token),
        ("peak MiB", _value("peak_mib")),
    ]
    _draw_presets(series, parts, "training step", "tokens per row", file)


def _draw_presets(
    metrics: dict[str, dict[str, dict[str, Any]]],
    parts: Sequence[tuple[str, Read]],
    what: str,
    over: str,
    file: str | Path,
) -> None:
    """Draw a row of panels for each part that was measured and a column for each preset.

    Curves over the lengths, or bars where there is only one.
    """
    rows = [by_length.values() for models in metrics.values() for by_length in models.values()]
    parts = [part for part in parts if _is_measured(part[1], rows)]
    count = len(metrics)
    figure = new_figure(5.4 * count + 0.6, 3.5 * len(parts))
    panels = figure.subplots(len(parts), count, squeeze=False)
    for column, (preset, models) in enumerate(metrics.items()):
        for row, (unit, read) in enumerate(parts):
            axes = panels[row][column]
            # a run that was cut off has no lengths for its last models
            lengths = sorted({int(length) for found in models.values() for length in found})
            if len(lengths) == 1:
                bars = {n: read(next(iter(x.values()))) for n, x in models.items() if x}
                _draw_bars(axes, bars, unit)
                title = f"{preset}, {what}, {format_length(lengths[0])} {over}"
                axes.set_title(title, fontsize=10, color=INK)
                continue
            for name, by_length in models.items():
                found = {int(length): read(row) for length, row in by_length.items()}
                points = [found.get(length) for length in lengths]
                _draw_curve(axes, name, _colour(name, models), lengths, points)
            _label(axes, f"{preset}, {what}", over, unit, lengths)
    _legend_below(figure, panels.flat)
    save(figure, file)


def _is_measured(read: Read, series: Iterable[Iterable[dict[str, Any]]]) -> bool:
    return any(read(row) is not None for rows in series for row in rows)


def _milliseconds(part: str) -> Read:
    def read(row: dict[str, Any]) -> Point | None:
        if part not in row:
            return None
        return row[part]["median_ms"], row[part]["p20_ms"], row[part]["p80_ms"]

    return read


def _value(field: str) -> Read:
    def read(row: dict[str, Any]) -> Point | None:
        return None if row.get(field) is None else (row[field],) * 3

    return read


def _plain(name: str) -> str:
    """Return the name without the way in which it is called, which shares its colour."""
    return next((name.removesuffix(way) for way in WAYS if name.endswith(way)), name)


def _colour(name: str, names: Iterable[str]) -> str:
    """Return the colour of a name among those of the same picture."""
    name = _plain(name)
    readers = [other for other in names if other.startswith("drt, ")]
    if name in readers:
        return READERS[readers.index(name) % len(READERS)]
    return COLOURS.get(name, OTHER)


def _draw_curve(
    axes: Axes, name: str, colour: str, lengths: Sequence[int], points: Sequence[Point | None]
) -> None:
    """Draw what there is; a length without a point ends the curve there."""
    shown = [(L, *point) for L, point in zip(lengths, points, strict=True) if point is not None]
    if not shown:
        return
    at, middle, low, high = zip(*shown, strict=True)
    is_ours = colour == COLOURS["gcattn"]
    axes.plot(
        at,
        middle,
        "o-" if name == _plain(name) else "s:",
        color=colour,
        label=name,
        linewidth=2.4 if is_ours else 1.4,
        markersize=4.5,
        zorder=4 if is_ours else 3,
    )
    axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)


def _write_behind(axes: Axes, end: tuple[float, float], text: str) -> None:
    """Write a number behind the end of a bar."""
    axes.annotate(
        text,
        end,
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=INK,
    )


def _draw_bars(axes: Axes, points: dict[str, Point | None], unit: str) -> None:
    """Draw a bar from 0 for each name, the first on top, with its number behind it."""
    names = list(reversed(points))
    for place, name in enumerate(names):
        point = points[name]
        if point is None:
            continue
        middle, low, high = point
        spread = [[middle - low], [high - middle]]
        axes.barh(place, middle, height=0.6, color=_colour(name, points), xerr=spread, ecolor=INK)
        text = f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}"
        _write_behind(axes, (high, place), text)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.12)  # room for the numbers
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_xlabel(unit, color=INK)
    make_plain(axes, "x")


def _label(axes: Axes, title: str, over: str, unit: str, lengths: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    every = -(-len(lengths) // 8)
    ticks = list(lengths)[::every]
    axes.set_xticks(ticks, [format_length(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xlabel(f"{over} (log scale)", color=INK)
    axes.set_ylabel(f"{unit} (log scale)", color=INK)
    low, high = axes.get_ylim()
    if high < LEAST_RANGE * low:
        # without this, noise would fill the panel and no tick would be in it
        stretch = (LEAST_RANGE * low / high) ** 0.5
        axes.set_ylim(low / stretch, high * stretch)
    few = high < 100 * low
    _label_plainly(axes.yaxis, few)
    make_plain(axes, "both")


def _label_plainly(axis: Axis, few: bool) -> None:
    """Write values as people do, at powers of ten or, if those are few, in between too."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if few else (1,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def _legend_below(figure: Figure, panels: Iterable[Axes]) -> None:
    named = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if not named:
        return
    # inches of the longest entry: its letters, its line and the space behind
    widest = 0.075 * max(map(len, named)) + 0.7
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=min(4, max(1, int(figure.get_figwidth() / widest))),
        frameon=False,
        fontsize=9,
    )
