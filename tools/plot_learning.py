"""Draw the pictures of hops, sizes and readers from results/: `python tools/plot_learning.py`."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from table_parts import ROOT, read
from tables_needle import GROUPS, SIZES, far_loss, right_answers

from gcattn.evals.plot import INK

COLOURS = ("#7a828c", "#1f6fb2", "#d9822b")
HOPS = {"single": "one hop", "two-hop-direct": "two hops", "three-hop-direct": "three hops"}
MODELS = {"1": "R 1", "2": "R 2", "3": "R 3", "3, twice the steps": "R 3, twice\nthe steps"}
TRIALS, CHAINS = 30, 8


def main() -> None:
    """Write the pictures."""
    figure = Figure(figsize=(6.4, 3.8), dpi=160, layout="constrained")
    draw_hops(figure.subplots())
    figure.savefig(ROOT / "docs" / "images" / "hops.png")
    figure = Figure(figsize=(8.4, 3.6), dpi=160, layout="constrained")
    for axes, text, title in zip(
        figure.subplots(1, 2), ("books_test", "math_test"), ("books", "mathematics"), strict=True
    ):
        draw_sizes(axes, text)
        axes.set_title(title, fontsize=10, color=INK)
    figure.savefig(ROOT / "docs" / "images" / "readers.png")


def draw_hops(axes: Axes) -> None:
    """Draw right answers by the number of groups, every seed a dot."""
    for place, (what, label) in enumerate(MODELS.items()):
        for hop, (task, name) in enumerate(HOPS.items()):
            right = [int(right_answers(f"groups/{f}", 4096)[task]) for f in GROUPS[what]]
            seeds = [100 * count / TRIALS for count in right]
            at = place + 0.26 * (hop - 1)
            mean = sum(seeds) / len(seeds)
            axes.bar(at, mean, 0.24, color=COLOURS[hop], label=None if place else name)
            axes.plot([at] * len(seeds), seeds, "o", color=INK, markersize=3)
        axes.annotate(label, (place, -6), ha="center", va="top", annotation_clip=False, color=INK)
    axes.axhline(100 / CHAINS, color=INK, linewidth=0.8, linestyle=":", label="guessed chain")
    axes.set_xticks([])
    axes.set_ylim(0, 104)
    axes.set_ylabel("whole answers right at 4K tokens, %")
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    axes.spines[["top", "right"]].set_visible(False)


def draw_sizes(axes: Axes, text: str) -> None:
    """Draw the loss far into a document by size, for each number of readers, a dot a seed."""
    for readers, colour in (("all", COLOURS[1]), ("the last", COLOURS[2])):
        sizes, losses = [], []
        for (_, which), runs in SIZES.items():
            if not which.startswith(readers):
                continue
            for run in runs:
                sizes.append(read(f"sizes/{run}")["config"]["parameters"] / 1e6)
                losses.append(far_loss(f"sizes/{run}_{text}"))
        label = f"{readers} of the upper layers read" if readers == "all" else "the last one reads"
        axes.plot(sizes, losses, "o", color=colour, markersize=6, alpha=0.8, label=label)
    axes.set_xscale("log")
    axes.set_xticks([10, 30, 100], ["10", "30", "100"])
    axes.set_xlabel("parameters, millions")
    axes.set_ylabel("loss at 8K to 16K, nats per token")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
