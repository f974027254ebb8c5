"""The plot of a needle evaluation: a map of lengths × depths for each task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import PercentFormatter

from gcattn.evals.lengths import format_length
from gcattn.evals.needle_cells import NeedleCell
from gcattn.evals.needle_report import by_task_and_length, summarize
from gcattn.figures import INK, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_COLUMNS = 3
_SHADES = "viridis"


def plot_needles(cells: Sequence[NeedleCell], title: str, file: str | Path) -> None:
    """Draw exact-match accuracy by length and depth and write a PNG.

    Args:
        cells: A complete grid: every task, length and depth.
        title: What was evaluated, and on what.
        file: The PNG to write.

    Raises:
        OSError: The file cannot be written.
    """
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    lengths = sorted({cell.length for cell in cells})
    depths = sorted({cell.depth for cell in cells})
    num_columns = min(len(tasks), _MOST_COLUMNS)
    num_rows = -(-len(tasks) // num_columns)
    width = max(2.6, 0.8 * len(lengths) + 1.2)
    height = max(2.4, 0.3 * len(depths) + 1.2)
    size = (max(5.0, num_columns * width + 1.2), num_rows * height + 0.8)
    figure = new_figure(*size)
    panels = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
    totals = by_task_and_length(cells)
    image: Any = None
    for number, axes in enumerate(panels.flat):
        if number >= len(tasks):
            axes.set_axis_off()
            continue
        task = tasks[number]
        grid = np.full((len(depths), len(lengths)), np.nan)
        for cell in cells:
            if cell.task == task:
                place = depths.index(cell.depth), lengths.index(cell.length)
                grid[place] = summarize(cell.answers).accuracy
        image = axes.imshow(grid, cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
        _write_values(axes, grid)
        _label(axes, task, [totals[task, length].accuracy for length in lengths], lengths, depths)
    for axes in panels[:, 0]:
        axes.set_ylabel("depth of the needle", color=INK)
    trials = len(cells[0].answers)
    bar = figure.colorbar(image, ax=panels, shrink=0.9, format=PercentFormatter(1), aspect=30)
    bar.set_label("samples with the whole answer right, generated greedily", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7.5, colors=INK)
    bar.outline.set_visible(False)
    figure.suptitle(
        f"{title}\n{trials} {'sample' if trials == 1 else 'samples'} in each cell",
        x=0.01,
        ha="left",
        fontsize=10,
        color=INK,
    )
    save(figure, file)


def _write_values(axes: Axes, grid: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(grid):
        red, green, blue, _ = colormaps[_SHADES](value)
        is_dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        axes.text(
            column,
            row,
            f"{100 * value:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if is_dark else INK,
        )


def _label(
    axes: Axes,
    task: str,
    accuracies: Sequence[float],
    lengths: Sequence[int],
    depths: Sequence[float],
) -> None:
    axes.set_title(task, loc="left", fontsize=9, color=INK)
    # below each length, its accuracy over all depths
    names = [
        f"{format_length(length)}\n{100 * accuracy:.0f} %"
        for length, accuracy in zip(lengths, accuracies, strict=True)
    ]
    axes.set_xticks(range(len(lengths)), names, fontsize=7.5)
    axes.set_yticks(range(len(depths)), [f"{100 * depth:.0f} %" for depth in depths], fontsize=7.5)
    axes.tick_params(colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
