"""The tables of models, their losses and what makes retrieval begin."""

from statistics import mean, stdev
from typing import Any

from table_parts import origin, read, table

FROM_POSITIONS = (128, 512, 1024, 2048, 4096, 8192)


def presets() -> str:
    """Return parameters, operations and memory of the presets."""
    from gcattn.models import PRESETS

    rows = []
    for preset in PRESETS.values():
        config = preset()
        held = config.memory_bytes_per_token()
        rows.append(
            f"| `{preset.__name__}` | {config.hidden_size} | "
            f"{config.num_lower_layers} + {config.num_upper_layers} | "
            f"{config.count_parameters():,} | {config.count_parameters(embeddings=False):,} | "
            f"{config.flops_per_token(training=False) / 1e6:,.1f} M | "
            f"{held['landmarks']:,.1f} + {held['keys_values']:,.0f} |"
        )
    return table(
        "preset | E | layers | parameters | without embeddings | operations per token, forward | "
        "memory per token, bytes (landmarks + keys and values, bf16)",
        rows,
    )


def retrieval() -> str:
    """Return recalled and other losses of each retrieval method."""
    result = read("retrieval")
    rows = []
    for name, method in result["metrics"]["methods"].items():
        cells = [
            f"{method['lengths'][length][kind]['mean']:.3f} ± "
            f"{method['lengths'][length][kind]['standard_deviation']:.3f}"
            for length in method["lengths"]
            for kind in ("recalled", "other")
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    lengths = result["metrics"]["methods"]["learned"]["lengths"]
    columns = [f"{kind}, {int(n):,} tokens" for n in lengths for kind in ("recalled", "other")]
    return table(" | ".join(["retrieval", *columns]), rows) + origin(result)


def short_sequences() -> str:
    """Return validation losses with and without cross-attention."""
    result = read("short_sequences")
    rows = [
        f"| {name.replace('_', ' ')} | {mean(model['first_training_loss']):.3f} | "
        f"{mean(model['last_training_loss']):.3f} | {model['validation_loss']['mean']:.3f} ± "
        f"{model['validation_loss']['standard_deviation']:.3f} |"
        for name, model in result["metrics"].items()
    ]
    header = "model | first training loss | last training loss | validation loss"
    return table(header, rows) + origin(result)


def books_perplexity() -> str:
    """Return loss, perplexity and bits per byte by length of the small model on books."""
    result = read("books_perplexity")
    rows = [
        f"| {int(entry['length']):,} | {entry['num_documents']} | {entry['loss']['mean']:.3f} | "
        f"{entry['perplexity']:.1f} | {entry['bits_per_byte']['mean']:.3f} |"
        for entry in result["metrics"]["lengths"]
    ]
    header = "context, tokens | documents | loss, nats per token | perplexity | bits per byte"
    entropy = result["metrics"]["unigram_entropy"]
    note = f"\nUnigram entropy of the same books: {entropy:.2f} nats per token.\n"
    return table(header, rows) + note + origin(result)


def recipe() -> str:
    """Return the exact share of needles of each recipe by length."""
    return _recipes("recipe")


def recipe_more() -> str:
    """Return those that were compared later, the base among them again."""
    return _recipes("recipe_more/recipe", "recipe_readers/recipe")


def recipe_encoder() -> str:
    """Return the base and that without a chunk encoder, trained on the same text."""
    return _recipes("recipe_encoder/base/recipe", "recipe_encoder/none/recipe")


def recipe_temperatures() -> str:
    """Return the base and that with temperatures drawn by chance, trained on the same text."""
    return _recipes("recipe_temperatures/base/recipe", "recipe_temperatures/drawn/recipe")


def recipe_later() -> str:
    """Return recipes that were compared last, with the base on the same text."""
    names = ("base", "self-copy", "noise-first", "plain-muon")
    return _recipes(*(f"recipe_more2/{name}/recipe" for name in names))


def _recipes(*names: str) -> str:
    results = [read(name) for name in names]
    result, rows = results[0], []
    for name, measured in (item for r in results for item in r["metrics"].items()):
        cells = [
            f"{100 * score['exact']['mean']:.0f} ± {100 * score['exact']['standard_deviation']:.0f}"
            for score in measured["lengths"].values()
        ]
        rows.append(f"| {name} | {measured['what']} | {' | '.join(cells)} |")
    lengths = [f"{length:,} tokens, %" for length in result["config"]["lengths"]]
    header = " | ".join(["recipe", "", *lengths])
    return table(header, rows) + "".join(map(origin, results))


def chunks() -> str:
    """Return needles, loss and speed by chunk size and number of retrieved chunks."""
    result = read("chunks")
    longest = str(max(result["config"]["lengths"]))
    rows = []
    for size in result["config"]["sizes"]:
        cells = []
        for count in result["config"]["counts"]:
            measured = result["metrics"][f"S{size}-K{count}"]
            exact = 100 * measured["lengths"][longest]["exact"]["mean"]
            cells.append(f"{exact:.0f} %, {measured['validation_loss']['mean']:.2f}")
        rows.append(f"| {size} | {' | '.join(cells)} |")
    columns = [f"K {count}" for count in result["config"]["counts"]]
    return table(" | ".join(["S", *columns]), rows) + origin(result)


def long_range() -> str:
    """Return the loss by position of DRTs and of sliding-window models of the same size."""
    rows = []
    for corpus in ("books", "math"):
        for name, models in (("DRT, R 2", "r2s"), ("sliding window, +2 layers", "sw")):
            results = [read(f"long_range_mixed/ppl_{corpus}_{models}{i}") for i in range(3)]
            by_seed = [_losses_by_position(result) for result in results]
            cells = [
                f"{mean(seed[start] for seed in by_seed):.3f} ± "
                f"{stdev(seed[start] for seed in by_seed):.3f}"
                for start in FROM_POSITIONS
            ]
            rows.append(f"| {corpus} | {name} | {' | '.join(cells)} |")
    columns = [f"{start:,} – {2 * start:,}" for start in FROM_POSITIONS]
    return table(" | ".join(["text", "model", *columns]), rows) + origin(results[-1])


def _losses_by_position(result: dict[str, Any]) -> dict[int, float]:
    """Return the mean loss from each position to twice as far, in the longest context."""
    longest = max(result["metrics"]["lengths"], key=lambda row: row["length"])
    return {p["start"]: p["loss"]["mean"] for p in longest["positions"]}
