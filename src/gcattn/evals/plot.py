"""The plot of an evaluation: loss against context position, one curve per length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import colormaps

from gcattn.evals.length_result import LengthResult
from gcattn.evals.lengths import format_length
from gcattn.figures import INK, make_plain, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# every model has a high loss on the first tokens, which would flatten the rest of the curve
FIRST_POSITION = 16


def plot_perplexity(results: Sequence[LengthResult], title: str, file: str | Path) -> None:
    """Draw losses by position with their standard errors and write a PNG.

    Args:
        results: One curve each.
        title: What was evaluated, and on what.
        file: The PNG to write.

    Raises:
        OSError: The file cannot be written.
    """
    figure = new_figure(8.0, 4.8)
    axes = figure.add_subplot()
    shades = colormaps["viridis"]
    for index, result in enumerate(results):
        shade = shades(0.85 - 0.75 * (index + 1) / len(results))
        # shorter ones on top and thinner: curves coincide where documents are the same
        _draw_curve(axes, result, shade, rank=len(results) - index)
    _label(axes, title)
    _mark_positions(axes, max(result.length for result in results))
    save(figure, file)


def short_name(path: Path) -> str:
    """Shorten a path to its last two parts: run and model, or corpus and split."""
    return "/".join(path.parts[-2:])


def _draw_curve(
    axes: Axes, result: LengthResult, shade: tuple[float, float, float, float], rank: int
) -> None:
    shown = [bucket for bucket in result.positions if bucket.stop > FIRST_POSITION]
    shown = shown or result.positions
    centres = [math.sqrt(bucket.start * (bucket.stop - 1)) for bucket in shown]
    means = [bucket.loss.mean for bucket in shown]
    errors = [bucket.loss.standard_error or 0.0 for bucket in shown]
    label = (
        f"{format_length(result.length)} tokens × {result.num_documents} "
        f"{'document' if result.num_documents == 1 else 'documents'}: "
        f"ppl {result.perplexity:,.1f}, {result.bits_per_byte.mean:.3f} bits/byte"
    )
    axes.plot(
        centres,
        means,
        color=shade,
        label=label,
        linewidth=1.6 + 0.9 / rank,
        marker="o",
        markersize=4 + 2.5 / rank,
        zorder=2 + rank,
    )
    lower = [mean - error for mean, error in zip(means, errors, strict=True)]
    upper = [mean + error for mean, error in zip(means, errors, strict=True)]
    axes.fill_between(centres, lower, upper, color=shade, alpha=0.18, linewidth=0)


def _label(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=10)
    axes.set_xlabel("tokens of context before the predicted one (log scale)", color=INK)
    axes.set_ylabel("loss (nats per token)", color=INK)
    make_plain(axes, "both")
    axes.legend(
        frameon=False,
        fontsize=8.5,
        title="mean ± standard error",
        title_fontsize=8.5,
        alignment="left",
    )
    perplexity = axes.secondary_yaxis("right")
    perplexity.set_ylabel("perplexity", color=INK)
    perplexity.tick_params(colors=INK)
    low, high = axes.get_ylim()
    ticks = [float(tick) for tick in axes.get_yticks() if low <= tick <= high]
    perplexity.set_yticks(ticks, [_perplexity(tick) for tick in ticks])


def _perplexity(loss: float) -> str:
    """Format exp(loss) with as many digits as a reader needs."""
    value = math.exp(loss)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mark_positions(axes: Axes, longest: int) -> None:
    """Put a tick at every power of two, or every second one where they would touch."""
    axes.set_xscale("log", base=2)
    axes.minorticks_off()
    low, high = axes.get_xlim()
    exponents = range(
        math.ceil(math.log2(max(low, 1))), math.floor(math.log2(max(high, longest))) + 1
    )
    step = 1 if len(exponents) <= 14 else 2
    ticks = [2**exponent for exponent in exponents[::step]]
    axes.set_xticks(ticks, [format_length(tick) for tick in ticks])
    axes.set_xlim(low, max(high, longest))
