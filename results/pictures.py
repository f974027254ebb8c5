"""Draws the pictures of hops, sizes and readers from the studies: `python -m results.pictures`."""

from matplotlib.axes import Axes

from gcattn.figures import BLUE, GREY, INK, ORANGE, new_figure, save
from results.collect import FOLDER
from results.tables.study import scores

COLOURS = (GREY, BLUE, ORANGE)
IMAGES = FOLDER.parent / "docs" / "images"
HOPS = {"single": "one hop", "two-hop-direct": "two hops", "three-hop-direct": "three hops"}
MODELS = {"R 1": "R 1", "R 2": "R 2", "R 3": "R 3", "R 3, twice the steps": "R 3, twice\nthe steps"}
CHAINS = 8


def main() -> None:
    """Write the pictures."""
    figure = new_figure(6.4, 3.8)
    draw_hops(figure.subplots())
    save(figure, IMAGES / "hops.png")
    figure = new_figure(8.4, 3.6)
    for axes, text, title in zip(
        figure.subplots(1, 2),
        ("data/books_test", "data/math_test"),
        ("books", "mathematics"),
        strict=True,
    ):
        draw_sizes(axes, text)
        axes.set_title(title, fontsize=10, color=INK)
    save(figure, IMAGES / "readers.png")


def draw_hops(axes: Axes) -> None:
    """Draw right answers by the number of groups, every seed a dot."""
    for place, (what, label) in enumerate(MODELS.items()):
        for hop, (task, name) in enumerate(HOPS.items()):
            found = scores("retrieval_groups", method=what, stage=2, length=4096, task=task)
            seeds = [100 * line["score"] for line in found]
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
    for readers, colour in (("all", BLUE), ("the last", ORANGE)):
        far = [x for x in scores("model_sizes", text=text, start=8192) if readers in x["method"]]
        counts = {
            x["method"]: x["parameters"]
            for x in scores("model_sizes", task="single", comparison="12M tokens")
        }
        sizes = [counts[line["method"]] / 1e6 for line in far]
        losses = [line["score"] for line in far]
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
