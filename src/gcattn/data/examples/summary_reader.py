"""Documents with summaries: XSum, CNN/DailyMail and any rows of two columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gcattn.data.examples.example import Example, summary_turn
from gcattn.data.examples.records import read_records

# what data sets call document and summary: XSum and most others, CNN/DailyMail, plain corpora
SCHEMAS = (("document", "summary"), ("article", "highlights"), ("text", "summary"))


def read_summaries(
    source: str,
    *,
    split: str | None = None,
    config_name: str | None = None,
    columns: tuple[str, str] | None = None,
) -> Iterator[Example]:
    """Yield documents with their summaries; rows whose summary is empty are left out.

    Args:
        source: What `read_records` reads, such as a parquet folder or `EdinburghNLP/xsum`.
        split: Split to read, where the source has splits.
        config_name: Configuration of a Hugging Face dataset, such as "3.0.0" of CNN/DailyMail.
        columns: Names of the columns of document and summary; by default those of `SCHEMAS`.

    Raises:
        FileNotFoundError: There is no such source.
        ValueError: A row has no such columns, or holds something other than text.
    """
    for place, row in read_records(source, split, config_name):
        document, summary = columns or _schema(place, row)
        texts = []
        for column in (document, summary):
            value = row.get(column)
            if column not in row or not isinstance(value, str | None):
                raise ValueError(
                    f"{place}: columns {document!r} and {summary!r} must hold text; it has: "
                    f"{', '.join(map(str, row))}. Name others with --columns DOCUMENT,SUMMARY."
                )
            texts.append((value or "").strip())
        if all(texts):
            yield Example(place, texts[0], (summary_turn(texts[1]),), cuts=True)


def _schema(place: str, columns: Iterable[str]) -> tuple[str, str]:
    names = list(columns)
    for schema in SCHEMAS:
        if set(schema) <= set(names):
            return schema
    known = ", ".join(" and ".join(schema) for schema in SCHEMAS)
    raise ValueError(
        f"{place} has the columns {', '.join(map(str, names))}; expected {known}, or name them "
        "with --columns DOCUMENT,SUMMARY."
    )
