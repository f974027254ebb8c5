"""The tables of the released model that writes: needles in anybody's words, RULER, losses."""

from collections.abc import Callable, Sequence

from gcattn.evals.lengths import format_length
from results.collect import Line
from results.tables.needles import NAMES
from results.tables.study import BOOKS, NOT_MEASURED, Table, scores, source, table, values

STUDY = "release"


def is_ruler(line: Line) -> bool:
    """Tell lines of `gcattn eval ruler`, whose score is RULER's own."""
    return "begins_right" in line


def is_loss(line: Line) -> bool:
    """Tell lines of `gcattn eval perplexity`."""
    return line["task"] == "loss"


def is_story(line: Line) -> bool:
    """Tell lines of `gcattn eval questions`."""
    return line["task"] == "questions"


def needles() -> str:
    """Return whole answers right, a row a task, a column a length."""
    lines = [x for x in scores(STUDY) if not (is_ruler(x) or is_loss(x) or is_story(x))]
    rows = [x | {"task": x["task"] + ("" if x["text"] == BOOKS else ", tables")} for x in lines]
    return by_length(rows, "task", right_of_asked) + source(STUDY, lines)


def stories() -> str:
    """Return questions about stories answered, before and after fine-tuning on others."""
    lines = [x for x in scores(STUDY) if is_story(x)]
    return by_length(lines, "method", right_of_asked) + source(STUDY, lines)


def ruler() -> str:
    """Return RULER's scores, and how many samples had every reference found."""
    lines = [x for x in scores(STUDY) if is_ruler(x)]
    return by_length(lines, "task", _ruler_score) + source(STUDY, lines)


def losses() -> str:
    """Return losses in text that training never saw, a row a text."""
    lines = [x for x in scores(STUDY) if is_loss(x) and "start" not in x]
    rows = [
        [
            NAMES.get(x["text"], x["text"].removesuffix("/validation").rpartition("/")[2]),
            format_length(x["length"]),
            x["documents"],
            f"{x['score']:.3f} ± {x['standard_error']:.3f}",
            f"{x['perplexity']:.1f}",
            f"{x['bits_per_byte']:.2f}",
        ]
        for x in lines
    ]
    columns = ["text", "tokens", "documents", "nats per token", "perplexity", "bits per byte"]
    return table(columns, rows) + source(STUDY, lines)


def by_length(lines: Sequence[Line], field: str, cell: Callable[[Sequence[Line]], str]) -> str:
    """Return a table with a row for each value of a field and a column for each length."""
    lengths = sorted(values(lines, "length"))
    rows = []
    for name in values(lines, field):
        found = [[x for x in lines if (x[field], x["length"]) == (name, n)] for n in lengths]
        rows.append([name, *(cell(of) if of else NOT_MEASURED for of in found)])
    return table([field, *(f"{format_length(n)} tokens" for n in lengths)], rows)


def right_of_asked(lines: Sequence[Line]) -> str:
    """Write how many answers were right."""
    return f"{sum(x['right'] for x in lines)} of {sum(x['asked'] for x in lines)}"


def _ruler_score(lines: Sequence[Line]) -> str:
    (line,) = lines
    return f"{100 * line['score']:.0f} ({right_of_asked(lines)})"


TABLES: dict[str, tuple[str, Table]] = {
    "release-needles": (STUDY, needles),
    "release-ruler": (STUDY, ruler),
    "release-losses": (STUDY, losses),
    "release-stories": (STUDY, stories),
}
