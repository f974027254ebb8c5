"""Write the tables of README and docs from results/: `python tools/readme_tables.py [--check]`.

Between `<!-- table: NAME -->` and `<!-- end -->` stands what this file makes of `results/*.json`;
nobody types a number there. `--check` changes nothing and fails if a file is not up to date.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import tables_bench
import tables_learning
import tables_natural
import tables_needle
from table_parts import ROOT

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


TABLES: dict[str, Callable[[], str]] = {
    "presets": tables_learning.presets,
    "retrieval": tables_learning.retrieval,
    "short-sequences": tables_learning.short_sequences,
    "books-perplexity": tables_learning.books_perplexity,
    "recipe": tables_learning.recipe,
    "recipe-more": tables_learning.recipe_more,
    "recipe-encoder": tables_learning.recipe_encoder,
    "recipe-temperatures": tables_learning.recipe_temperatures,
    "recipe-later": tables_learning.recipe_later,
    "chunks": tables_learning.chunks,
    "needle-texts": tables_needle.needle_texts,
    "needle-seeds": tables_needle.needle_seeds,
    "needle-12m": tables_needle.needle_12m,
    "sink": tables_needle.sink,
    "sink-elsewhere": tables_needle.sink_elsewhere,
    "needle-tiny": tables_needle.needle_tiny,
    "bench-op": tables_bench.bench_op,
    "bench-extremes": tables_bench.bench_extremes,
    "bench-op-lengths": tables_bench.bench_op_lengths,
    "bench-model": tables_bench.bench_model,
    "bench-train": tables_bench.bench_train,
    "bench-train-34m": tables_bench.bench_train_34m,
    "dense-start": tables_needle.dense_start,
    "bench-train-growth": tables_bench.bench_train_growth,
    "bench-decode": tables_bench.bench_decode,
    "two-hop": tables_needle.two_hop,
    "continued": tables_needle.continued,
    "groups": tables_needle.groups,
    "groups-1m": tables_needle.groups_1m,
    "groups-after": tables_needle.groups_after,
    "sizes": tables_needle.sizes,
    "long-range": tables_learning.long_range,
    "natural-12m": tables_natural.natural_12m,
}

if __name__ == "__main__":
    sys.exit(main())
