"""Pictures of the experiments, drawn from their result files."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gcattn.evals.lengths import format_length
from gcattn.evals.plot import FAINT, INK
from gcattn.storage.whole import new_file

COLOURS = {
    "learned": "#1f6fb2",
    "with_gca": "#1f6fb2",
    "random": "#d9822b",
    "none": "#7a828c",
    "without_gca": "#7a828c",
}


def plot_retrieval(metrics: dict[str, Any], length: int, file: str | Path) -> None:
    """Draw recalled and other losses of each method, every seed a dot, and the learning curves."""
    figure = Figure(figsize=(9.0, 4.2), dpi=160, layout="constrained")
    bars, curves = figure.subplots(1, 2)
    for place, (name, method) in enumerate(metrics["methods"].items()):
        measured = method["lengths"][str(length)]
        for group, kind in enumerate(("recalled", "other")):
            at = group * 4 + place
            bars.bar(at, measured[kind]["mean"], color=COLOURS[name], label=None if group else name)
            seeds = measured[kind]["seeds"]
            bars.plot([at] * len(seeds), seeds, "o", color=INK, markersize=3)
            bars.annotate(
                f"{measured[kind]['mean']:.2f}",
                (at, max(seeds)),
                textcoords="offset points",
                xytext=(0, 4),
                ha="center",
                fontsize=8,
                color=INK,
            )
    bars.set_xticks([1, 5], ["recalled tokens", "all other tokens"])
    bars.set_ylabel("loss, nats per token")
    bars.set_title(f"validation documents of {length:,} tokens", fontsize=10, color=INK)
    for name, method in metrics["methods"].items():
        _draw_curves(curves, name, method["validation_curves"])
    _label_curves(curves)
    bars.legend(frameon=False, fontsize=9, title="retrieval", title_fontsize=9)
    _plain(bars)
    _save(figure, file)


def plot_recipes(metrics: dict[str, Any], file: str | Path) -> None:
    """Draw the exact share of needles of each recipe, every seed a dot, a panel per length."""
    names = list(metrics)[::-1]
    lengths = list(metrics[names[0]]["lengths"])
    size = (1.6 + 2.8 * len(lengths), 1.1 + 0.3 * len(names))
    figure = Figure(figsize=size, dpi=160, layout="constrained")
    panels = figure.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axes, length in zip(panels, lengths, strict=True):
        for place, name in enumerate(names):
            measured = metrics[name]["lengths"][length]["exact"]
            axes.barh(place, 100 * measured["mean"], color=COLOURS["learned"], height=0.6)
            seeds = [100 * value for value in measured["seeds"]]
            axes.plot(seeds, [place] * len(seeds), "o", color=INK, markersize=3, clip_on=False)
        axes.set_title(f"{format_length(int(length))} tokens", fontsize=10, color=INK)
        axes.set_xlim(0, 100)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("whole answers right, %")
        _plain(axes)
    _save(figure, file)


def plot_short_sequences(metrics: dict[str, Any], file: str | Path) -> None:
    """Draw the validation loss of the model with and without cross-attention."""
    figure = Figure(figsize=(6.4, 4.2), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    for name, model in metrics.items():
        _draw_curves(axes, name, [curve["validation"] for curve in model["curves"]])
    _label_curves(axes)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, file)


def _draw_curves(axes: Axes, name: str, curves: list[list[list[float]]]) -> None:
    for number, curve in enumerate(curves):
        steps, losses = zip(*curve, strict=True)
        label = name.replace("_", " ") if number == 0 else None
        axes.plot(steps, losses, color=COLOURS[name], linewidth=1.2, label=label)


def _label_curves(axes: Axes) -> None:
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("validation loss, nats per token")
    axes.set_title("every line is one seed", fontsize=10, color=INK)
    axes.set_ylim(bottom=0)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Figure, file: str | Path) -> None:
    with new_file(file, "wb") as stream:
        figure.savefig(stream, format="png")
