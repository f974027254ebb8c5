"""Draws the pictures of README and docs from the studies: `python -m results.pictures`."""

import argparse

import matplotlib
from matplotlib.axes import Axes

from gcattn.evals.lengths import format_length
from gcattn.figures import BLUE, GREY, INK, ORANGE, new_figure, save
from gcattn.storage.whole import new_file
from results.collect import FOLDER
from results.tables.front_page import DECODERS, OPERATORS
from results.tables.study import scores

COLOURS = (GREY, BLUE, ORANGE)
IMAGES = FOLDER.parent / "docs" / "images"
HOPS = {"single": "one hop", "two-hop-direct": "two hops", "three-hop-direct": "three hops"}
MODELS = {"R 1": "R 1", "R 2": "R 2", "R 3": "R 3", "R 3, twice the steps": "R 3, twice\nthe steps"}
CHAINS = 8
# read on white and on black
MIDDLE = "#7d8590"


def main() -> None:
    """Draw the pictures of README and docs from the studies in results/."""
    argparse.ArgumentParser(prog="results.pictures", description=main.__doc__).parse_args()
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
    draw_front_page()


def draw_front_page() -> None:
    """Write the three pictures of README, which have no background."""
    matplotlib.rcParams["svg.hashsalt"] = "gcattn"
    for name, draw in (
        ("needles", draw_needles),
        ("operator", draw_operator),
        ("decoding", draw_decoding),
    ):
        figure = new_figure(6.4, 2.9)
        axes = figure.subplots()
        draw(axes)
        axes.grid(color=MIDDLE, alpha=0.25, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MIDDLE)
        axes.tick_params(colors=MIDDLE, which="both")
        axes.xaxis.label.set_color(MIDDLE)
        axes.yaxis.label.set_color(MIDDLE)
        axes.legend(frameon=False, fontsize=8, labelcolor=MIDDLE)
        with new_file(IMAGES / f"{name}.svg", "wb") as stream:
            figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})


def draw_needles(axes: Axes) -> None:
    """Draw right answers of gcattn-12m by length, a line for each kind of text."""
    texts = {
        "data/books/validation": ("books", BLUE, "o-"),
        "data/math": ("mathematics", ORANGE, "s--"),
        "data/code2": ("code, a kind of text not trained on", MIDDLE, "^:"),
    }
    for text, (name, colour, style) in texts.items():
        lines = scores("needle_12m", text=text, task="single")
        lengths = sorted({line["length"] for line in lines})
        shares = []
        for length in lengths:
            found = [line for line in lines if line["length"] == length]
            right, asked = (sum(line[field] for line in found) for field in ("right", "asked"))
            shares.append(100 * right / asked)
        axes.plot(lengths, shares, style, color=colour, label=name)
    longest_row = 16_128
    axes.axvline(longest_row, color=MIDDLE, linewidth=0.8, linestyle=":")
    axes.annotate("  longest training row", (longest_row, 40), color=MIDDLE, fontsize=8)
    _length_axis(axes, [4096, 16_384, 65_536, 2**20, 2**24])
    axes.set_ylim(0, 104)
    axes.set_ylabel("whole answers right, %")


def draw_operator(axes: Axes) -> None:
    """Draw device time, forward and backward, of one layer by length."""
    lines = scores("operator", comparison="lengths", task="forward + backward")
    other_shapes = {line["shape"] for line in lines if line["shape"].startswith("B4")}
    other_shapes |= {line["shape"] for line in lines if "D128" in line["shape"]}
    for (method, name), colour in zip(OPERATORS.items(), (BLUE, ORANGE, MIDDLE), strict=True):
        times = {
            line["length"]: line["score"]
            for line in lines
            if line["method"] == method and line["shape"] not in other_shapes and "score" in line
        }
        lengths = sorted(times)
        axes.plot(lengths, [times[n] for n in lengths], "o-", color=colour, label=name)
    _length_axis(axes, [1024, 4096, 16_384, 65_536, 262_144])
    axes.set_yscale("log")
    axes.set_ylabel("forward + backward, ms")


# ways to keep the past, each drawn once
KEPT = ("gcattn, device memory", "gcattn, host memory", "full attention (SDPA)")


def draw_decoding(axes: Axes) -> None:
    """Draw the memory that a decoded token needs on the GPU by the length of the context."""
    lines = scores("decoding", comparison="decoding")
    for method, colour in zip(KEPT, (BLUE, ORANGE, MIDDLE), strict=True):
        found = sorted(
            (x["length"], x["device_bytes"] / 2**20) for x in lines if x["method"] == method
        )
        axes.plot(*zip(*found, strict=True), "o-", color=colour, label=DECODERS[method])
    _length_axis(axes, [1024, 16_384, 65_536, 2**20, 2**24])
    axes.set_yscale("log")
    axes.set_ylabel("cache on the GPU, MiB")


def _length_axis(axes: Axes, ticks: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [format_length(n) for n in ticks])
    axes.minorticks_off()
    axes.set_xlabel("tokens")


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
