"""Preparation of a corpus: documents of a SOURCE in, token shards out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gcattn.data.documents import read_documents
from gcattn.data.shard_writer import DEFAULT_SHARD_TOKENS, TokenShardWriter
from gcattn.data.token_shards import TokenShards
from gcattn.data.tokenizer_loading import SHIPPED_TOKENIZER_NAME, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Progress = Callable[[int, int], None]
# enough text to keep the encoder's threads busy, little enough to keep memory small
_BATCH_CHARACTERS = 4_000_000


def prepare_shards(
    source: str,
    folder: str | Path,
    *,
    tokenizer: str | Path | None = None,
    text_column: str = "text",
    split: str = "train",
    config_name: str | None = None,
    max_documents: int | None = None,
    shard_tokens: int = DEFAULT_SHARD_TOKENS,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> TokenShards:
    """Encode every document of `source` and write token shards to `folder`.

    Args:
        source: What `read_documents` reads: a file, folder, glob pattern or Hugging Face dataset.
        folder: The folder to make; it appears only once it is whole.
        tokenizer: What `load_tokenizer` loads; None is the shipped one.
        text_column: Field that holds the text.
        split: Split to read, where the source has splits.
        config_name: Configuration of a Hugging Face dataset.
        max_documents: Stop after this many documents.
        shard_tokens: A shard is closed after the document that reaches this number of tokens.
        overwrite: Replace `folder` if it holds token shards.
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
    with TokenShardWriter(
        folder, loaded, name, shard_tokens=shard_tokens, overwrite=overwrite
    ) as writer:
        documents = read_documents(
            source, text_column=text_column, split=split, config_name=config_name
        )
        for batch in _batches(itertools.islice(documents, max_documents)):
            for text, token_ids in zip(batch, _encode(batch, loaded), strict=True):
                writer.append(token_ids, len(text.encode()))
            if on_progress is not None:
                on_progress(writer.num_documents, writer.num_tokens)
        if writer.num_documents == 0:
            raise ValueError(f"{source} holds no documents with text in it; nothing was written.")
    return TokenShards(folder)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[np.ndarray]:
    """Encode on all cores; special tokens spelled out in the text stay plain characters."""
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_truncation()
    for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
        yield np.array(encoding.ids, dtype=np.int64)
