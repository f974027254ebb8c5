"""The three small tables of README."""

from gcattn.evals.lengths import format_length
from results.collect import Line
from results.tables.release import right_of_asked
from results.tables.study import BOOKS, NOT_MEASURED, Table, scores, source, table

# models and tasks, each with the study that has its scores
NEEDLES = (
    ("gcattn-39m", "single", "release"),
    ("gcattn-39m", "worded-single", "release"),
    ("gcattn-39m", "worded-multi-key", "release"),
    ("gcattn-39m", "people", "release"),
    ("gcattn-39m", "notes", "release"),
    ("gcattn-12m", "single", "needle_12m"),
    ("gcattn-12m", "two-hop", "needle_12m"),
)
# contestants under the names that readers know
OPERATORS = {
    "gcattn": "GCA",
    "SDPA full causal": "full attention",
    "gcattn sliding window": "sliding window",
}
DECODERS = {
    "gcattn, device memory": "gcattn, memory on the GPU",
    "gcattn, host memory": "gcattn, memory in host RAM",
    "gcattn, host memory, generate()": "the same through `generate()`",
    "full attention (SDPA)": "full attention",
    "full attention (SDPA), compiled, static cache": "full attention, compiled",
}


def needles() -> str:
    """Return right answers of the released models in books, a column a length."""
    books = {
        study: [x for x in scores(study) if x["text"] == BOOKS]
        for study in ("release", "needle_12m")
    }
    books["needle_12m"] += scores("needle_once")
    shown = [
        (model, task, [x for x in books[study] if x["task"] == task])
        for model, task, study in NEEDLES
    ]
    lengths = sorted({x["length"] for _, _, lines in shown for x in lines})
    rows = [
        [f"`{model}`", f"`{task}`", *(_right(lines, length) for length in lengths)]
        for model, task, lines in shown
    ]
    columns = ["model", "task", *(format_length(length) for length in lengths)]
    everything = [x for _, _, lines in shown for x in lines]
    return table(columns, rows) + source("release", everything)


def _right(lines: list[Line], length: int) -> str:
    found = [x for x in lines if x["length"] == length]
    return right_of_asked(found) if found else NOT_MEASURED


def operator() -> str:
    """Return device and wall time, forward and backward, of one layer by length."""
    lines = scores("operator", comparison="wall", task="forward + backward")
    by_length = {(line["length"], line["method"]): line for line in lines}
    times = {"device": "score", "wall": "wall_ms"}
    rows = [
        [f"{n:,}", *(_ms(by_length[n, m], field) for m in OPERATORS for field in times.values())]
        for n in sorted({n for n, method in by_length if method == "gcattn"})
    ]
    headers = [f"{name}, {time}" for name in OPERATORS.values() for time in times]
    return table(["tokens", *headers], rows) + source("operator", lines)


def _ms(line: Line, field: str) -> str:
    return f"{line[field]:.2f} ms" if line.get(field) is not None else NOT_MEASURED


def decoding() -> str:
    """Return the time of a generated token and the memory on the GPU, a column a length."""
    lines = scores("decoding", comparison="decoding")
    lengths = sorted({line["length"] for line in lines})
    rows = []
    for method, name in DECODERS.items():
        found = {line["length"]: line for line in lines if line["method"] == method}
        rows.append([name, *(_token(found[n]) if n in found else NOT_MEASURED for n in lengths)])
    columns = ["`drt_128m`, one row", *(f"{format_length(n)} tokens" for n in lengths)]
    return table(columns, rows) + source("decoding", lines)


def _token(line: Line) -> str:
    return f"{line['score']:.2f} ms, {line['device_bytes'] / 2**20:,.0f} MiB"


TABLES: dict[str, tuple[str, Table]] = {
    "front-needles": ("release", needles),
    "front-operator": ("operator", operator),
    "front-decoding": ("decoding", decoding),
}
