"""The tables of models, their losses and what makes retrieval begin."""

from collections.abc import Sequence
from statistics import mean

from gcattn.evals.lengths import format_length
from results.collect import Line
from results.tables.study import BOOKS, Table, mean_and_deviation, scores, source, table, values

FROM_POSITIONS = (128, 512, 1024, 2048, 4096, 8192)
# of comparisons, and their names in tables
TEXTS = {"books": "books", "math": "mathematics", "articles": "articles"}


def presets() -> str:
    """Return parameters, operations and memory of the presets."""
    from gcattn.models import PRESETS

    rows = []
    for preset in PRESETS.values():
        config = preset()
        held = config.memory_bytes_per_token()
        rows.append(
            [
                f"`{preset.__name__}`",
                config.hidden_size,
                f"{config.num_lower_layers} + {config.num_upper_layers}",
                f"{config.count_parameters():,}",
                f"{config.count_parameters(embeddings=False):,}",
                f"{config.flops_per_token(training=False) / 1e6:,.1f} M",
                f"{held['landmarks']:,.1f} + {held['keys_values']:,.0f}",
            ]
        )
    columns = [
        "preset",
        "E",
        "layers",
        "parameters",
        "without embeddings",
        "operations per token, forward",
        "memory per token, bytes (landmarks + keys and values, bf16)",
    ]
    return table(columns, rows)


def retrieval() -> str:
    """Return recalled and other losses of each retrieval method."""
    lines = scores("retrieval_methods")
    places = [(n, task) for n in values(lines, "length") for task in ("recalled", "other")]
    rows = []
    for method in values(lines, "method"):
        cells = [
            mean_and_deviation(scores("retrieval_methods", method=method, length=n, task=task), 3)
            for n, task in places
        ]
        rows.append([method, *cells])
    columns = ["retrieval", *(f"{task}, {n:,} tokens" for n, task in places)]
    return table(columns, rows) + source("retrieval_methods", lines)


def short_sequences() -> str:
    """Return validation losses with and without cross-attention."""
    lines = scores("short_sequences")
    rows = []
    for method in values(lines, "method"):

        def of(task: str, method: str = method) -> list[Line]:
            return scores("short_sequences", method=method, task=task)

        ends = [mean(x["score"] for x in of(f"{end} training loss")) for end in ("first", "last")]
        validation = mean_and_deviation(of("validation loss"), 3)
        rows.append([method, *(f"{end:.3f}" for end in ends), validation])
    columns = ["model", "first training loss", "last training loss", "validation loss"]
    return table(columns, rows) + source("short_sequences", lines)


def books_perplexity() -> str:
    """Return loss, perplexity and bits per byte by length of the small model on books."""
    lines = [line for line in scores("books_perplexity") if "start" not in line]
    rows = [
        [
            f"{line['length']:,}",
            line["documents"],
            f"{line['score']:.3f}",
            f"{line['perplexity']:.1f}",
            f"{line['bits_per_byte']:.3f}",
        ]
        for line in lines
    ]
    columns = ["context, tokens", "documents", "loss, nats per token", "perplexity"]
    entropy = lines[0]["unigram_entropy"]
    note = f"\nUnigram entropy of the same books: {entropy:.2f} nats per token.\n"
    made = table([*columns, "bits per byte"], rows)
    return made + note + source("books_perplexity", lines)


def recipes(comparison: str) -> str:
    """Return the exact share of needles of each recipe of a comparison, by length."""
    lines = scores("recipes", comparison=comparison, task="single")
    lengths = values(lines, "length")
    rows = []
    for name in values(lines, "method"):
        found = [line for line in lines if line["method"] == name]
        cells = [
            mean_and_deviation([x for x in found if x["length"] == length], 0, factor=100)
            for length in lengths
        ]
        rows.append([name, found[0]["what"], *cells])
    columns = ["recipe", "", *(f"{length:,} tokens, %" for length in lengths)]
    return table(columns, rows) + source("recipes", lines)


def chunks() -> str:
    """Return needles and loss by chunk size and number of retrieved chunks."""
    lines = scores("chunk_sizes")
    longest = max(values(lines, "length"))
    grid: dict[str, dict[str, list[Line]]] = {}
    for line in lines:
        size, _, count = line["method"].partition("-")
        grid.setdefault(size, {}).setdefault(count, []).append(line)
    rows = []
    for size, by_count in grid.items():
        cells = []
        for found in by_count.values():
            exact = 100 * mean(x["score"] for x in found if x.get("length") == longest)
            loss = mean(x["score"] for x in found if x["task"] == "validation loss")
            cells.append(f"{exact:.0f} %, {loss:.2f}")
        rows.append([size[1:], *cells])
    counts = [f"K {count[1:]}" for count in next(iter(grid.values()))]
    return table(["S", *counts], rows) + source("chunk_sizes", lines)


def long_range() -> str:
    """Return the loss by position of DRTs and of sliding-window models of the same size."""
    lines = scores("long_range", length=16_384)
    rows = []
    for text, name in ((BOOKS, "books"), ("data/math", "math")):
        for method in values(lines, "method"):
            cells = [
                mean_and_deviation(
                    scores("long_range", length=16_384, text=text, method=method, start=start), 3
                )
                for start in FROM_POSITIONS
            ]
            rows.append([name, method, *cells])
    columns = ["text", "model", *(f"{start:,} – {2 * start:,}" for start in FROM_POSITIONS)]
    return table(columns, rows) + source("long_range", lines)


def natural(comparison: str, split: str = "", texts: Sequence[str] = tuple(TEXTS)) -> str:
    """Return losses at the start and far into texts, and what retrieval is worth there.

    Texts are those of validation, or of the split that ends their names (`-test`).
    """
    lines = scores("natural_text", comparison=comparison)
    models: dict[str, list[Line]] = {}
    for line in lines:
        models.setdefault(line["method"], []).append(line)

    def losses(name: str, text: str) -> list[Line]:
        return [x for x in models[name] if x["text"] == text and x["task"] == "loss"]

    def cell(name: str, text: str) -> str:
        first, last = losses(name, text)[0], losses(name, text)[-1]
        (gain,) = (x for x in models[name] if x["text"] == text and x["task"] == "long-range gain")
        spread = f" ± {last['standard_deviation']:.3f}" if "standard_deviation" in last else ""
        made = f"{first['score']:.3f} → {last['score']:.3f}{spread}, {gain['score']:+.3f}"
        return made + (f"; {last['off']:.2f}, {last['random']:.2f}" if "off" in last else "")

    rows = [
        [
            name,
            f"{models[name][0]['learning_rate'] * 1e3:g}",
            models[name][0].get("seeds", 1),
            *(cell(name, text + split) for text in texts),
        ]
        for name in sorted(models, key=lambda name: losses(name, f"math{split}")[-1]["score"])
    ]
    columns = ["model", "learning rate × 1000", "seeds", *(TEXTS.get(text, text) for text in texts)]
    return table(columns, rows) + source("natural_text", lines)


def natural_positions(comparison: str, text: str) -> str:
    """Return the loss of each model by position in one text."""
    lines = scores("natural_text", comparison=comparison)
    losses = [x for x in lines if x["text"] == text and x["task"] == "loss"]
    stops = values(losses, "stop")
    rows = [
        [name, *(f"{x['score']:.3f}" for x in losses if x["method"] == name)]
        for name in values(losses, "method")
    ]
    columns = [f"to {format_length(stop)}" for stop in stops]
    return table(["model", *columns], rows) + source("natural_text", losses)


TABLES: dict[str, tuple[str, Table]] = {
    "presets": ("", presets),
    "retrieval": ("retrieval_methods", retrieval),
    "short-sequences": ("short_sequences", short_sequences),
    "books-perplexity": ("books_perplexity", books_perplexity),
    "recipe": ("recipes", lambda: recipes("one part taken away")),
    "recipe-more": ("recipes", lambda: recipes("later")),
    "recipe-encoder": ("recipes", lambda: recipes("without an encoder")),
    "recipe-temperatures": ("recipes", lambda: recipes("drawn temperatures")),
    "recipe-later": ("recipes", lambda: recipes("last")),
    "recipe-mixing": ("recipes", lambda: recipes("ways to mix")),
    "chunks": ("chunk_sizes", chunks),
    "long-range": ("long_range", long_range),
    "natural-12m": ("natural_text", lambda: natural("natural_12m")),
    "natural-12m-muon": ("natural_text", lambda: natural("natural_12m_muon")),
    "natural-12m-muon-rates": ("natural_text", lambda: natural("natural_12m_muon_rates")),
    "natural-34m": ("natural_text", lambda: natural("natural_34m")),
    "natural-34m-test": ("natural_text", lambda: natural("natural_34m", "-test")),
    "natural-128m": ("natural_text", lambda: natural("natural_128m")),
    "natural-128m-test": ("natural_text", lambda: natural("natural_128m", "-test")),
    "natural-128m-64k": ("natural_text", lambda: natural_positions("natural_128m", "books-64k")),
    "books-only-12m": (
        "natural_text",
        lambda: natural("books_only_12m", texts=("books", "math", "articles", "code")),
    ),
}
