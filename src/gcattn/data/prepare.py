"""Preparation of a corpus: documents of a SOURCE in, token shards out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from gcattn.data.documents import OnInvalid, Pieces, read_pieces
from gcattn.data.shard_writer import DEFAULT_SHARD_TOKENS, TokenShardWriter
from gcattn.data.text_pieces import TextCutter
from gcattn.data.token_shards import TokenShards
from gcattn.data.tokenizer_loading import SHIPPED_TOKENIZER_NAME, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Progress = Callable[[int, int], None]
# enough text to keep the encoder's threads busy, little enough to keep memory small
_BATCH_CHARACTERS = 2**21


def prepare_shards(
    source: str,
    folder: str | Path,
    *,
    tokenizer: str | Path | None = None,
    text_column: str = "text",
    split: str | None = None,
    config_name: str | None = None,
    max_documents: int | None = None,
    shard_tokens: int = DEFAULT_SHARD_TOKENS,
    overwrite: bool = False,
    on_invalid: OnInvalid | None = None,
    on_progress: Progress | None = None,
) -> TokenShards:
    """Encode every document of `source` and write token shards to `folder`, in bounded memory.

    Args:
        source: What `read_documents` reads: a file, folder, glob pattern or Hugging Face dataset.
        folder: The folder to make; it appears only once it is complete.
        tokenizer: What `load_tokenizer` loads; None is the shipped one.
        text_column: Field that holds the text.
        split: Split to read, where the source has splits; None is "train" there.
        config_name: Configuration of a Hugging Face dataset.
        max_documents: Stop after this many documents.
        shard_tokens: A shard is closed after the document that reaches this number of tokens.
        overwrite: Replace `folder` if it holds token shards.
        on_invalid: Told what is wrong with each document that is left out; without it the first one
            that can't be read is an error.
        on_progress: Called after every batch with the numbers of documents and tokens so far.

    Returns:
        The shards, opened.

    Raises:
        FileNotFoundError: The source or the tokenizer does not exist.
        FileExistsError: `folder` exists and `overwrite` is off.
        ValueError: The source holds no documents, or no such column or split.
    """
    if max_documents is not None and max_documents < 1:
        raise ValueError(f"max_documents must be at least 1, got {max_documents}.")
    loaded = load_tokenizer(tokenizer)
    name = SHIPPED_TOKENIZER_NAME if tokenizer is None else str(tokenizer)
    backend = loaded.backend_tokenizer
    # special tokens spelled out in the text stay plain characters
    backend.encode_special_tokens = True
    backend.no_truncation()
    with TokenShardWriter(
        folder, loaded, name, shard_tokens=shard_tokens, overwrite=overwrite
    ) as writer:
        documents = read_pieces(
            source,
            text_column=text_column,
            split=split,
            config_name=config_name,
            on_invalid=on_invalid,
        )
        for batch in _batches(_parts(documents, TextCutter(backend), max_documents, on_invalid)):
            for part, token_ids in zip(batch, _encode(batch, backend), strict=True):
                if part.text:
                    writer.append_part(token_ids, len(part.text.encode()))
                if part.then == "drop":
                    writer.drop_document()
                if part.then == "end":
                    writer.end_document()
            if on_progress is not None:
                on_progress(writer.num_documents, writer.num_tokens)
        if writer.num_documents == 0:
            raise ValueError(f"{source} holds no documents with text in it; nothing was written.")
    return TokenShards(folder)


@dataclass(frozen=True)
class _Part:
    """Some text of a document, and what comes then."""

    text: str
    then: Literal["go on", "end", "drop"] = "go on"


def _parts(
    documents: Iterable[Pieces],
    cutter: TextCutter,
    max_documents: int | None,
    on_invalid: OnInvalid | None,
) -> Iterator[_Part]:
    """Cut documents into parts; a part is held back until it is known to be the last or not."""
    num_documents = 0
    for pieces in documents:
        last: str | None = None
        try:
            for text in cutter.cut(pieces):
                if last is not None:
                    yield _Part(last)
                last = text
        except ValueError as error:
            if on_invalid is None:
                raise
            on_invalid(str(error))
            yield _Part("", "drop")
            continue
        if last is not None:
            yield _Part(last, "end")
            num_documents += 1
            if num_documents == max_documents:
                return


def _batches(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    batch: list[_Part] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part.text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(parts: list[_Part], backend: Tokenizer) -> Iterator[np.ndarray]:
    """Encode on all cores."""
    texts = [part.text for part in parts]
    for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
        yield np.array(encoding.ids, dtype=np.int64)
