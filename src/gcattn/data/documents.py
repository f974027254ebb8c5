"""Raw documents, the first step of the data flow: from a SOURCE the user names to texts.

A SOURCE that exists on disk (a file, a folder or a glob pattern) is read by `file_readers`;
anything else is a Hugging Face dataset and is read by `hub_documents`. A document comes in pieces,
so that none need be whole in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gcattn.data.file_readers import read_file
from gcattn.data.source_files import find_files

Pieces = Iterator[str]
OnInvalid = Callable[[str], None]


def read_documents(
    source: str,
    *,
    text_column: str = "text",
    split: str | None = None,
    config_name: str | None = None,
    on_invalid: OnInvalid | None = None,
) -> Iterator[str]:
    """Yield the non-empty texts of `source`, in a fixed order.

    Args:
        source: A parquet, jsonl, json or txt file (all but the first also compressed: .gz, .bz2,
            .xz, .zst), a folder of one of these, a glob pattern, or a Hugging Face dataset name
            (also `hf://…` data files).
        text_column: Field that holds the text; txt files have none: each file is one document.
        split: Split of a Hugging Face dataset, or of files whose names say their split; "all" reads
            files whatever their names say. None is "train" where there are splits.
        config_name: Configuration of a Hugging Face dataset, such as "3.0.0".
        on_invalid: Told what is wrong with a document that is left out; without it, the first one
            that can't be read is an error.

    Raises:
        FileNotFoundError: `source` is neither on disk nor a dataset name.
        ValueError: The files hold no such split, no such column or something other than text.
    """
    for pieces in read_pieces(
        source,
        text_column=text_column,
        split=split,
        config_name=config_name,
        on_invalid=on_invalid,
    ):
        try:
            text = "".join(pieces)
        except ValueError as error:
            if on_invalid is None:
                raise
            on_invalid(str(error))
            continue
        if text:
            yield text


def read_pieces(
    source: str,
    *,
    text_column: str = "text",
    split: str | None = None,
    config_name: str | None = None,
    on_invalid: OnInvalid | None = None,
) -> Iterator[Pieces]:
    """Yield each document of `source` as an iterator of its pieces; an empty one has none.

    A document must be read, or given up, before the next is asked for. What is wrong with it is a
    ValueError while its pieces are read, and the caller's to report; `on_invalid` is told what is
    wrong with a file as a whole.
    """
    files = find_files(source, split)
    if files is None:
        from gcattn.data.hub_documents import read_hub_documents

        yield from read_hub_documents(source, text_column, split, config_name)
        return
    for file in files:
        try:
            yield from read_file(file, text_column)
        except (ValueError, OSError) as error:
            if on_invalid is None:
                raise
            on_invalid(str(error))
