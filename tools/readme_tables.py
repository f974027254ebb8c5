"""Write the tables of README and docs from results/: `python tools/readme_tables.py [--check]`.

Between `<!-- table: NAME -->` and `<!-- end -->` stands what this file makes of `results/*.json`;
nobody types a number there. `--check` changes nothing and fails if a file is not up to date.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from needle_table import needle_table

ROOT = Path(__file__).parents[1]
FROM_POSITIONS = (128, 512, 1024, 2048, 4096, 8192)
# results of the checkpoint gcattn-12m in results/needle_12m, in books and in other texts
BOOKS = ("short", "1m", "1m_more", "16m_device", "16m_host_1", "16m_host_2")
OTHER_TEXTS = ("other_books", "math", "code", "other_books_1m", "math_1m", "code_1m")
# contestants of the table of the operator by length
BY_LENGTH = ("gcattn", "gather + SDPA", "SDPA full causal", "gcattn sliding window")
# runs of results/two_hop, of three stages each, and what was particular in them
TWO_HOP = {
    "old0": "books",
    "old1": "books",
    "oldhop0": "books; first group at full scale",
    "oldhop1": "books; first group at full scale",
    "oldnoise0": "books, a quarter of the rows spoiled",
    "cur0": "books; first group at full scale, stage 2 longer; then text of all kinds, numbers",
    "cur1": "books; first group at full scale, stage 2 longer; then text of all kinds, numbers",
    "heavy0": "as above in text of all kinds, two thirds chains",
    "newhop0": "text of all kinds, spoiled rows, numbers; first group at full scale",
    "taps0": "text of all kinds; first group at full scale, keys know eight slots",
}
# what was made of the second stage of `old0`, and the third stage that made it
CONTINUED = {
    "two_hop/q_cbig0_3": "`single` 3, `number` 2: what `gcattn-12m` went on from",
    "two_hop/q_cmix0_3": "`single` 2, `number` 1",
    "two_hop/q_clow0_3": "… at 4e-4, a tenth of the rows spoiled",
    "two_hop/q_cheavy0_3": "… with twice the chains",
}
# runs of results/two_hop/dense, of two stages, by what begins the second
DENSE_STARTS = {
    "base": "8 chunks from the first step",
    "dense": "every chunk for 110 of 221 steps, then 8",
    "short": "every chunk for 160 of 221 steps in rows of 2,016 tokens, then 8",
    "sharp": "every chunk for 110 steps; scores start at 16 times the cosine",
}
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Rewrite the files, or say which would change."""
    stale = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = file.read_text(encoding="utf-8")
        new = BLOCK.sub(lambda m: m.group(1) + _made(m.group(2)) + m.group(3), old)
        if new == old:
            continue
        stale.append(file.relative_to(ROOT))
        if "--check" not in sys.argv[1:]:
            file.write_text(new, encoding="utf-8")
    if "--check" in sys.argv[1:] and stale:
        print(f"not what results/ says: {', '.join(map(str, stale))}")
        print("run: python tools/readme_tables.py")
        return 1
    return 0


def _made(name: str) -> str:
    try:
        return TABLES[name]()
    except FileNotFoundError as error:
        return f"Not measured yet: there is no {Path(error.filename).relative_to(ROOT)}.\n"


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
    return _table(
        "preset | E | layers | parameters | without embeddings | operations per token, forward | "
        "memory per token, bytes (landmarks + keys and values, bf16)",
        rows,
    )


def retrieval() -> str:
    """Return recalled and other losses of each retrieval method."""
    result = _read("retrieval")
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
    return _table(" | ".join(["retrieval", *columns]), rows) + _origin(result)


def short_sequences() -> str:
    """Return validation losses with and without cross-attention."""
    result = _read("short_sequences")
    rows = [
        f"| {name.replace('_', ' ')} | {_mean(model['first_training_loss']):.3f} | "
        f"{_mean(model['last_training_loss']):.3f} | {model['validation_loss']['mean']:.3f} ± "
        f"{model['validation_loss']['standard_deviation']:.3f} |"
        for name, model in result["metrics"].items()
    ]
    header = "model | first training loss | last training loss | validation loss"
    return _table(header, rows) + _origin(result)


def books_perplexity() -> str:
    """Return loss, perplexity and bits per byte by length of the small model on books."""
    result = _read("books_perplexity")
    rows = [
        f"| {int(entry['length']):,} | {entry['num_documents']} | {entry['loss']['mean']:.3f} | "
        f"{entry['perplexity']:.1f} | {entry['bits_per_byte']['mean']:.3f} |"
        for entry in result["metrics"]["lengths"]
    ]
    header = "context, tokens | documents | loss, nats per token | perplexity | bits per byte"
    entropy = result["metrics"]["unigram_entropy"]
    note = f"\nUnigram entropy of the same books: {entropy:.2f} nats per token.\n"
    return _table(header, rows) + note + _origin(result)


def recipe() -> str:
    """Return the exact share of needles of each recipe by length."""
    return _recipes("recipe")


def recipe_more() -> str:
    """Return those that were compared later, the base among them again."""
    return _recipes("recipe_more/recipe", "recipe_readers/recipe")


def _recipes(*names: str) -> str:
    results = [_read(name) for name in names]
    result, rows = results[0], []
    for name, measured in (item for r in results for item in r["metrics"].items()):
        cells = [
            f"{100 * score['exact']['mean']:.0f} ± {100 * score['exact']['standard_deviation']:.0f}"
            for score in measured["lengths"].values()
        ]
        rows.append(f"| {name} | {measured['what']} | {' | '.join(cells)} |")
    lengths = [f"{length:,} tokens, %" for length in result["config"]["lengths"]]
    header = " | ".join(["recipe", "", *lengths])
    return _table(header, rows) + "".join(map(_origin, results))


def chunks() -> str:
    """Return needles, loss and speed by chunk size and number of retrieved chunks."""
    result = _read("chunks")
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
    return _table(" | ".join(["S", *columns]), rows) + _origin(result)


def needle_texts() -> str:
    """Return scores of the checkpoint gcattn-12m in texts of other kinds."""
    return _needles(*(f"needle_12m/{part}" for part in OTHER_TEXTS))


def two_hop() -> str:
    """Return chains of two and numbers, run by run, after the second and the third stage."""
    tasks = ("single", "two-hop", "number")
    rows = []
    for name, what in TWO_HOP.items():
        stages = [_right(f"two_hop/q_{name}_{stage}", 4096) for stage in (2, 3)]
        cells = [" → ".join(stage[task] for stage in stages) for task in tasks]
        rows.append(f"| {what} | {name[-1]} | {' | '.join(cells)} |")
    header = " | ".join(["rows", "seed", *tasks])
    return _table(header, rows) + _origin(_read("two_hop/q_old0_3"))


def continued() -> str:
    """Return what third stages make of a model whose second hop has begun."""
    tasks = ("single", "two-hop", "number", "multi-key")
    rows = []
    for name, what in CONTINUED.items():
        lengths = [_right(name, length) for length in (4096, 65_536)]
        cells = [", ".join(length[task] for length in lengths) for task in tasks]
        rows.append(f"| {what} | {' | '.join(cells)} |")
    header = " | ".join(["third stage", *tasks])
    return _table(header, rows) + _origin(_read(next(iter(CONTINUED))))


def _right(name: str, length: int) -> dict[str, str]:
    """Return the right answers of a length, by task."""
    entries = _read(name)["metrics"]["by_length"]
    return {entry["task"]: str(entry["exact"]) for entry in entries if entry["length"] == length}


def needle_seeds() -> str:
    """Return scores of one and two retrieval groups, seed by seed."""
    rows = []
    for groups in (1, 2):
        for seed in range(3):
            entries = _read(f"needle_mixed/needle_r{groups}s{seed}")["metrics"]["by_length"]
            cells = [
                f"{entry['exact']} of {entry['trials']}"
                for length in (4096, 65_536)
                for task in ("single", "two-hop")
                for entry in entries
                if (entry["task"], entry["length"]) == (task, length)
            ]
            rows.append(f"| {groups} | {seed} | {' | '.join(cells)} |")
    header = "R | seed | single, 4k | two-hop, 4k | single, 64k | two-hop, 64k"
    return _table(header, rows) + _origin(_read("needle_mixed/needle_r2s0"))


def needle_tiny() -> str:
    """Return scores of the tiny checkpoint by task and length."""
    return _needles("needle_tiny", "needle_tiny_1m")


def needle_12m() -> str:
    """Return scores of the checkpoint gcattn-12m in books, by task and length."""
    return _needles(*(f"needle_12m/{part}" for part in BOOKS))


def _needles(*names: str) -> str:
    results = [_read(name) for name in names]
    return needle_table(results) + "".join(_origin(result) for result in results)


def long_range() -> str:
    """Return the loss by position of DRTs and of sliding-window models of the same size."""
    rows = []
    for corpus in ("books", "math"):
        for name, models in (("DRT, R 2", "r2s"), ("sliding window, +2 layers", "sw")):
            results = [_read(f"long_range_mixed/ppl_{corpus}_{models}{i}") for i in range(3)]
            by_seed = [_losses_by_position(result) for result in results]
            cells = [
                f"{mean(seed[start] for seed in by_seed):.3f} ± "
                f"{stdev(seed[start] for seed in by_seed):.3f}"
                for start in FROM_POSITIONS
            ]
            rows.append(f"| {corpus} | {name} | {' | '.join(cells)} |")
    columns = [f"{start:,} – {2 * start:,}" for start in FROM_POSITIONS]
    return _table(" | ".join(["text", "model", *columns]), rows) + _origin(results[-1])


def _losses_by_position(result: dict[str, Any]) -> dict[int, float]:
    """Return the mean loss from each position to twice as far, in the longest context."""
    longest = max(result["metrics"]["lengths"], key=lambda row: row["length"])
    return {p["start"]: p["loss"]["mean"] for p in longest["positions"]}


def bench_extremes() -> str:
    """Return the operators at unusual shapes, each beside what it is held to."""
    result = _read("bench_extremes")
    metrics, rows = result["metrics"], []
    for row in metrics["scan"]:
        shape = f"{row['queries']} queries, {row['landmarks']:,} landmarks"
        ratio = row["median_ms"] / row["read_ms"]
        held = f"{row['read_ms']:.3g}, to read them once"
        rows.append(f"| scan | {shape} | {row['median_ms']:.3g} | {held} | {ratio:.2f} |")
    for row in metrics["few_queries"]:
        ours, other = (row["ways"][way]["median_ms"] for way in ("in place", "gathered first"))
        shape = f"{row['slots']} slots, pool on the {row['pool']}"
        held = f"{other:.3g}, copied together first"
        rows.append(f"| few queries | {shape} | {ours:.3g} | {held} | {ours / other:.2f} |")
    even = metrics["popularity"][0]["forward_backward"]["median_ms"]
    for row in metrics["popularity"]:
        both = row["forward_backward"]["median_ms"]
        held = f"{even:.3g}, read uniformly"
        rows.append(
            f"| forward + backward | readers: {row['readers']} | {both:.3g} | {held} | "
            f"{both / even:.2f} |"
        )
    return _table("what | shape | ms | beside, ms | ratio", rows) + _origin(result)


def bench_op() -> str:
    """Return milliseconds and memory of the operator and its peers at the fixed shapes."""
    result = _read("bench_op")
    rows = []
    for measured in result["metrics"]["shapes"][:3]:
        for name, row in measured["contestants"].items():
            if "forward_backward" not in row:
                continue
            rows.append(
                f"| {measured['label']} | {name} | {row['forward']['median_ms']:.3f} | "
                f"{row['forward_backward']['median_ms']:.3f} | {row['peak_mib']:,.0f} |"
            )
    header = "shape | operator | forward, ms | forward + backward, ms | memory beyond inputs, MiB"
    return _table(header, rows) + _origin(result)


def bench_op_lengths() -> str:
    """Return milliseconds, forward and backward, of the operator and its peers by length."""
    result, rows = _read("bench_op_lengths/bench_op"), []
    for measured in result["metrics"]["shapes"][3:]:
        contestants = measured["contestants"]
        times = [f"{contestants[n]['forward_backward']['median_ms']:.3f}" for n in BY_LENGTH]
        memory = f"{contestants['gcattn']['peak_mib']:,.0f}"
        rows.append(f"| {measured['shape']['length']:,} | {' | '.join(times)} | {memory} |")
    header = " | ".join(["length", *BY_LENGTH, "gcattn, MiB beyond inputs"])
    return _table(header, rows) + _origin(result)


def bench_model() -> str:
    """Return tokens per second of prefill by prompt length."""
    result, rows = _read("bench_model"), []
    for preset, models in result["metrics"].items():
        for model, measured in models.items():
            for length, row in measured["lengths"].items():
                rows.append(
                    f"| `{preset}`, {model} | {int(length):,} | {row['median_ms']:,.1f} | "
                    f"{row['tokens_per_second']:,.0f} | {row['peak_mib']:,.0f} |"
                )
    header = "model | prompt, tokens | ms | tokens/s | MiB beyond weights"
    return _table(header, rows) + _origin(result)


def bench_train_34m() -> str:
    """Return training steps of the smaller preset."""
    return _training_steps("bench_train_34m/bench_train")


def dense_start() -> str:
    """Return chains of two where the second stage begins with every chunk read."""
    rows = []
    for kind, what in DENSE_STARTS.items():
        seeds = range(2 if kind == "sharp" else 3)
        scores = [_right(f"two_hop/dense/hop_{kind}{seed}", 4096) for seed in seeds]
        cells = [", ".join(score[task] for score in scores) for task in ("single", "two-hop")]
        rows.append(f"| {what} | {' | '.join(cells)} |")
    origin = _origin(_read("two_hop/dense/hop_base0"))
    return _table("second stage | single | two-hop", rows) + origin


def bench_train() -> str:
    """Return training steps of DRTs beside Transformers without retrieval."""
    return _training_steps("bench_train")


def bench_train_growth() -> str:
    """Return what a token costs in short and in long rows."""
    return _training_steps("bench_train_growth/bench_train")


def _training_steps(name: str) -> str:
    result, rows = _read(name), []
    for preset, measured in result["metrics"]["presets"].items():
        for by_length in measured["lengths"].values():
            wider = by_length["models"]["sliding window, +2 layers"]["median_ms"]
            for model, row in by_length["models"].items():
                rows.append(
                    f"| `{preset}`, {model} | {by_length['rows']} × "
                    f"{by_length['tokens_per_row']:,} | {row['median_ms']:.1f} | "
                    f"{row['tokens_per_second']:,.0f} | {row['mfu_of_data_sheet']:.1%} | "
                    f"{row['peak_mib'] / 1024:.1f} | {row['median_ms'] / wider:.3f} |"
                )
    header = "model | rows × tokens | ms per step | tokens/s | MFU | peak, GiB | over +2 layers"
    return _table(header, rows) + _origin(result)


def bench_decode() -> str:
    """Return milliseconds per generated token, and where the past lies."""
    result, rows = _read("bench_decode"), []
    for preset, ways in result["metrics"].items():
        for way, by_length in ways.items():
            for length, row in by_length.items():
                held = (f"{row['bytes'][tier] / 2**20:,.0f}" for tier in ("device", "host"))
                rows.append(
                    f"| `{preset}`, {way} | {int(length):,} | {row['median_ms']:.1f} | "
                    f"{row['closing_median_ms']:.1f} | {' | '.join(held)} |"
                )
    header = (
        "model | context, tokens | ms per token | ms per token that closes a chunk | "
        "MiB on the device | MiB on the host"
    )
    return _table(header, rows) + _origin(result)


def _read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def _table(header: str, rows: list[str]) -> str:
    columns = header.count("|") + 1
    return "\n".join([f"| {header} |", "|" + " --- |" * columns, *rows]) + "\n"


def _origin(result: dict[str, Any]) -> str:
    hardware, software = result["hardware"], result["software"]
    machine = hardware.get("gpu") or f"{hardware['cpu']}, {hardware['cores']} cores"
    return (
        f"\n`{result['command']}` · {result['trials']} trials from seed {result['seed']} · "
        f"{machine} · torch {software['torch']} · {result['date'][:10]}\n"
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


TABLES: dict[str, Callable[[], str]] = {
    "presets": presets,
    "retrieval": retrieval,
    "short-sequences": short_sequences,
    "books-perplexity": books_perplexity,
    "recipe": recipe,
    "recipe-more": recipe_more,
    "chunks": chunks,
    "needle-texts": needle_texts,
    "needle-seeds": needle_seeds,
    "needle-12m": needle_12m,
    "needle-tiny": needle_tiny,
    "bench-op": bench_op,
    "bench-extremes": bench_extremes,
    "bench-op-lengths": bench_op_lengths,
    "bench-model": bench_model,
    "bench-train": bench_train,
    "bench-train-34m": bench_train_34m,
    "dense-start": dense_start,
    "bench-train-growth": bench_train_growth,
    "bench-decode": bench_decode,
    "two-hop": two_hop,
    "continued": continued,
    "long-range": long_range,
}

if __name__ == "__main__":
    sys.exit(main())
