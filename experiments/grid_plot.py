"""Heat maps over chunk size and number of retrieved chunks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from gcattn.evals.lengths import format_length
from gcattn.figures import INK, new_figure, save


def plot_grid(
    metrics: Mapping[tuple[int, int], Any],
    sizes: Sequence[int],
    counts: Sequence[int],
    lengths: Sequence[int],
    file: str | Path,
) -> None:
    """Draw the exact share at each length, the validation loss and the training speed.

    Args:
        metrics: What `compare_recipes` found, by S and K.
        sizes: S, rows of the maps.
        counts: K, columns of the maps.
        lengths: Contexts that were asked.
        file: PNG.
    """

    def values(read: Any) -> list[list[float]]:
        return [[read(metrics[S, K]) for K in counts] for S in sizes]

    maps = [
        (
            f"needles at {format_length(n)} tokens, %",
            values(lambda m, n=n: 100 * m["lengths"][str(n)]["exact"]["mean"]),
            "{:.0f}",
            True,
        )
        for n in lengths
    ]
    loss = values(lambda m: m["validation_loss"]["mean"])
    speed = values(lambda m: m["tokens_per_second"]["mean"] / 1e3)
    maps += [
        ("validation loss, nats per token", loss, "{:.2f}", False),
        ("training, thousand tokens/s", speed, "{:.1f}", True),
    ]
    figure = new_figure(3.5 * len(maps), 3.4)
    for axes, (title, table, form, more_is_better) in zip(
        figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True
    ):
        _draw(axes, title, table, form, more_is_better, sizes, counts)
    save(figure, file)


def _draw(
    axes: Axes,
    title: str,
    table: list[list[float]],
    form: str,
    more_is_better: bool,
    sizes: Sequence[int],
    counts: Sequence[int],
) -> None:
    axes.imshow(table, cmap="Blues" if more_is_better else "Blues_r", aspect="auto", alpha=0.75)
    low, high = min(map(min, table)), max(map(max, table))
    for row, cells in enumerate(table):
        for column, value in enumerate(cells):
            strength = (value - low) / (high - low) if high > low else 0.5
            dark = strength > 0.7 if more_is_better else strength < 0.3
            axes.text(
                column,
                row,
                form.format(value),
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else INK,
            )
    axes.set_xticks(range(len(counts)), [str(K) for K in counts])
    axes.set_yticks(range(len(sizes)), [str(S) for S in sizes])
    axes.set_xlabel("retrieved chunks K", color=INK)
    axes.set_ylabel("slots per chunk S", color=INK)
    axes.set_title(title, fontsize=10, color=INK)
    axes.tick_params(length=0, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)
