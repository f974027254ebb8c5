"""The tables of needles: the released checkpoints, hops and groups, sizes, the sink."""

from collections.abc import Iterable, Sequence

from gcattn.evals.lengths import format_length
from gcattn.evals.wilson import wilson_interval
from results.collect import Line
from results.tables.study import BOOKS, Table, scores, source, table, values

# texts under the names that readers know; others are called by the end of their folder
NAMES = {
    BOOKS: "books",
    "data/books1k/validation": "books",
    "data/books_test": "more books",
}
SCORE_COLUMNS = (
    "task",
    "context, tokens",
    "whole answers right",
    "95 % interval",
    "first token, teacher-forced",
    "s per sample",
)


def score_table(lines: Sequence[Line]) -> str:
    """Return a row for each text, task and length; seeds are put together.

    Texts have a column where there are several.
    """
    cells: dict[tuple[str, str, int], list[Line]] = {}
    for line in lines:
        cells.setdefault((line["text"], line["task"], line["length"]), []).append(line)
    several = len(values(lines, "text")) > 1
    rows = []
    for (text, task, length), found in cells.items():
        right, asked = (sum(line[field] for line in found) for field in ("right", "asked"))
        first, seconds = (
            sum(line[field] * line["asked"] for line in found) / asked
            for field in ("first_token", "seconds")
        )
        interval = wilson_interval(right, asked)
        name = NAMES.get(text, text.rpartition("/")[2])
        rows.append(
            [
                *([name] if several else []),
                task,
                format_length(length),
                f"{right} of {asked}",
                f"{100 * interval.low:.0f} – {100 * interval.high:.0f} %",
                f"{100 * first:.0f} %",
                f"{seconds:.2f}",
            ]
        )
    return table([*(["haystack"] if several else []), *SCORE_COLUMNS], rows)


def needle_12m() -> str:
    """Return scores of the checkpoint gcattn-12m in books, by task and length."""
    lines = scores("needle_12m", text=BOOKS)
    return score_table(lines) + source("needle_12m", lines)


def needle_texts() -> str:
    """Return scores of the checkpoint gcattn-12m in texts of other kinds."""
    lines = [x for x in scores("needle_12m") if x["text"] != BOOKS]
    return score_table(lines) + source("needle_12m", lines)


def needle_once() -> str:
    """Return needles in contexts that were read once into a memory."""
    lines = scores("needle_once")
    rows = [
        [
            f"{line['length']:,}",
            f"{line['right']} of {line['asked']}",
            line["gpus"],
            f"{line['reading_seconds']:.1f}",
            f"{line['length'] / line['reading_seconds']:,.0f}",
            f"{line['device_bytes'] / 2**30:.2f}",
            f"{line['disk_bytes'] / 2**30:.2f}",
        ]
        for line in sorted(lines, key=lambda line: line["length"])
    ]
    columns = ["context, tokens", "whole answers right", "GPUs", "reading, s", "tokens/s"]
    return table([*columns, "GiB on a GPU", "GiB on disk"], rows) + source("needle_once", lines)


def needle_tiers() -> str:
    """Return scores of the checkpoint gcattn-12m with memory in eight bits."""
    lines = scores("needle_tiers")
    return score_table(lines) + source("needle_tiers", lines)


def needle_tiny() -> str:
    """Return scores of the tiny checkpoint by task and length."""
    lines = scores("needle_tiny")
    return score_table(lines) + source("needle_tiny", lines)


def groups() -> str:
    """Return chains by the number of retrieval groups, seed by seed."""
    lines = scores("retrieval_groups", stage=2, length=4096)
    tasks = ("single", "two-hop-direct", "three-hop-direct")
    rows = [
        [method.removeprefix("R "), *(_by_seed(lines, method, task) for task in tasks)]
        for method in values(lines, "method")
    ]
    columns = ["R", *(f"{task}, 4k" for task in tasks)]
    return table(columns, rows) + source("retrieval_groups", lines)


def groups_1m() -> str:
    """Return direct chains of two in a million tokens by the number of groups, seed by seed."""
    lines = scores("retrieval_groups", stage=2, length=2**20, task="two-hop-direct")
    rows = [
        [method[2], _by_seed(lines, method, "two-hop-direct")] for method in values(lines, "method")
    ]
    return table(["R", "two-hop-direct, 1m"], rows) + source("retrieval_groups", lines)


def groups_after() -> str:
    """Return the same models after a third stage with longer links, in longer text."""
    lines = scores("retrieval_groups", stage=3, length=65_536)
    tasks = ("single", "two-hop-direct", "three-hop-direct", "two-hop", "three-hop")
    rows = [
        [method.removeprefix("R "), *(_by_seed(lines, method, task) for task in tasks)]
        for method in values(lines, "method")
    ]
    columns = ["R", *(f"{task}, 64k" for task in tasks)]
    return table(columns, rows) + source("retrieval_groups", lines)


def two_hop() -> str:
    """Return chains of two and numbers, run by run, after the second and the third stage."""
    lines = scores("two_hops", comparison="rows")
    tasks = ("single", "two-hop", "number")
    rows = []
    for method in values(lines, "method"):
        of_method = _where(lines, method=method)
        for seed in values(of_method, "seed"):
            cells = [
                " → ".join(_right(of_method, seed=seed, task=task, stage=stage) for stage in (2, 3))
                for task in tasks
            ]
            rows.append([method, seed, *cells])
    return table(["rows", "seed", *tasks], rows) + source("two_hops", lines)


def continued() -> str:
    """Return what third stages make of a model whose second hop has begun."""
    lines = scores("two_hops", comparison="third stages")
    tasks = ("single", "two-hop", "number", "multi-key")
    rows = []
    for method in values(lines, "method"):
        cells = [
            ", ".join(
                _right(lines, method=method, task=task, length=length) for length in (4096, 65_536)
            )
            for task in tasks
        ]
        rows.append([method, *cells])
    return table(["third stage", *tasks], rows) + source("two_hops", lines)


def dense_start() -> str:
    """Return chains of two where the second stage begins with every chunk read."""
    lines = scores("two_hops", comparison="second stages", length=4096)
    tasks = ("single", "two-hop")
    rows = [
        [method, *(_by_seed(lines, method, task) for task in tasks)]
        for method in values(lines, "method")
    ]
    return table(["second stage", *tasks], rows) + source("two_hops", lines)


def needle_seeds() -> str:
    """Return scores of one and two retrieval groups, seed by seed."""
    lines = scores("two_hops", comparison="text of all kinds")
    rows = []
    for method in values(lines, "method"):
        for seed in values(lines, "seed"):
            cells = []
            for length in (4096, 65_536):
                for task in ("single", "two-hop"):
                    (line,) = _where(lines, method=method, seed=seed, length=length, task=task)
                    cells.append(f"{line['right']} of {line['asked']}")
            rows.append([method.removeprefix("R "), seed, *cells])
    columns = ["R", "seed", "single, 4k", "two-hop, 4k", "single, 64k", "two-hop, 64k"]
    return table(columns, rows) + source("two_hops", lines)


def sizes() -> str:
    """Return needles and losses by size and by which layers read, seed by seed."""
    lines = scores("model_sizes", comparison="12M tokens")
    tasks = ("single", "number", "multi-key", "multi-query")
    rows = []
    for method in values(lines, "method"):
        found = _where(lines, method=method)
        size, _, readers = method.partition(", ")
        cells = [_by_seed(_where(found, length=65_536), method, task) for task in tasks]
        for text in ("data/books_test", "data/math_test"):
            far = _where(found, text=text, start=8192)
            cells.append(", ".join(f"{line['score']:.3f}" for line in far))
        readers = readers.removesuffix(" read").removesuffix(" reads")
        rows.append([f"`{size}`", readers, f"{found[0]['parameters'] / 1e6:.0f}", *cells])
    columns = ["size", "readers", "M parameters", *tasks, "loss, books", "loss, mathematics"]
    return table(columns, rows) + source("model_sizes", lines)


def sink() -> str:
    """Return right answers of gcattn-12m with sinks of its cross-attention."""
    lines = [x for x in scores("sink") if x["text"] in ("data/code3", BOOKS)]
    tasks = ("single", "two-hop", "two-hop-direct", "multi-key")
    rows = []
    for method in values(lines, "method"):
        code = _right(lines, method=method, text="data/code3", task="single")
        books = [_right(lines, method=method, text=BOOKS, task=task) for task in tasks]
        rows.append([_logit(method), code, *books])
    columns = ["sink's logit", "code, single", *(f"books, {task}" for task in tasks)]
    return table(columns, rows) + source("sink", lines)


def sink_elsewhere() -> str:
    """Return what the chosen sink does to needles and losses in text that did not choose it."""
    texts = ("data/package_tests", "data/books_test", "data/math")
    lines = [x for x in scores("sink") if x["text"] in texts]
    rows = []
    for method in values(lines, "method"):
        found = [x for x in _where(lines, method=method) if "start" not in x]
        right = _right(found, text=texts[0], task="single")
        losses = [f"{_where(found, text=text, task='loss')[0]['score']:.3f}" for text in texts[1:]]
        rows.append([_logit(method), right, *losses])
    columns = [
        "sink's logit",
        "tests of packages, single",
        "loss, more books",
        "loss, mathematics",
    ]
    return table(columns, rows) + source("sink", lines)


def _logit(method: str) -> str:
    return {"no sink": "none"}.get(method, method.removeprefix("sink_logit "))


def _where(lines: Iterable[Line], **wanted: object) -> list[Line]:
    return [x for x in lines if all(x.get(field) == value for field, value in wanted.items())]


def _right(lines: Iterable[Line], **wanted: object) -> str:
    (line,) = _where(lines, **wanted)
    return str(line["right"])


def _by_seed(lines: Iterable[Line], method: str, task: str) -> str:
    return ", ".join(str(x["right"]) for x in _where(lines, method=method, task=task))


TABLES: dict[str, tuple[str, Table]] = {
    "needle-12m": ("needle_12m", needle_12m),
    "needle-texts": ("needle_12m", needle_texts),
    "needle-once": ("needle_once", needle_once),
    "needle-tiers": ("needle_tiers", needle_tiers),
    "needle-tiny": ("needle_tiny", needle_tiny),
    "groups": ("retrieval_groups", groups),
    "groups-1m": ("retrieval_groups", groups_1m),
    "groups-after": ("retrieval_groups", groups_after),
    "two-hop": ("two_hops", two_hop),
    "continued": ("two_hops", continued),
    "dense-start": ("two_hops", dense_start),
    "needle-seeds": ("two_hops", needle_seeds),
    "sizes": ("model_sizes", sizes),
    "sink": ("sink", sink),
    "sink-elsewhere": ("sink", sink_elsewhere),
}
