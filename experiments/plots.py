"""Pictures of the experiments, drawn from their result files."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from gcattn.evals.lengths import format_length
from gcattn.figures import BLUE, GREY, INK, ORANGE, make_plain, new_figure, save

COLOURS = {
    "learned": BLUE,
    "with_gca": BLUE,
    "random": ORANGE,
    "none": GREY,
    "without_gca": GREY,
}


def plot_retrieval(metrics: dict[str, Any], length: int, file: str | Path) -> None:
    """Draw recalled and other losses of each method, every seed a dot, and the learning curves."""
    figure = new_figure(9.0, 4.2)
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
    make_plain(bars)
    save(figure, file)


def plot_recipes(metrics: dict[str, Any], file: str | Path) -> None:
    """Draw the exact share of needles of each recipe, every seed a dot, a panel per length."""
    names = list(metrics)[::-1]
    lengths = list(metrics[names[0]]["lengths"])
    size = (1.6 + 2.8 * len(lengths), 1.1 + 0.3 * len(names))
    figure = new_figure(*size)
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
        make_plain(axes)
    save(figure, file)


def plot_short_sequences(metrics: dict[str, Any], file: str | Path) -> None:
    """Draw the validation loss of the model with and without cross-attention."""
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for name, model in metrics.items():
        _draw_curves(axes, name, [curve["validation"] for curve in model["curves"]])
    _label_curves(axes)
    axes.legend(frameon=False, fontsize=9)
    save(figure, file)


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
    make_plain(axes)
