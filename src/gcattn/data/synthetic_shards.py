"""Token shards of the synthetic corpus, with a mask of the tokens that repeat an earlier fact."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gcattn.data.prepare import Progress
from gcattn.data.shard_writer import TokenShardWriter
from gcattn.data.synthetic import SyntheticDocument, synthetic_documents
from gcattn.data.token_shards import TokenShards
from gcattn.data.tokenizer_loading import SHIPPED_TOKENIZER_NAME, load_tokenizer
from gcattn.data.words.split import Split

if TYPE_CHECKING:
    from tokenizers import Encoding

_BATCH_DOCUMENTS = 64


def prepare_synthetic_shards(
    folder: str | Path,
    num_documents: int,
    document_tokens: int,
    seed: int,
    *,
    split: Split = "train",
    recall_distance: tuple[int, int] | None = None,
    tokenizer_name: str | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> TokenShards:
    """Make a synthetic corpus and write it as token shards with a recall mask.

    Args:
        folder: The folder to make; it appears only once it is complete.
        num_documents: How many documents.
        document_tokens: Length of every document, end-of-text token included.
        seed: Fixes the corpus.
        split: "train" or "validation"; their names and codes are disjoint.
        recall_distance: Least and most tokens between a fact and its recall; None is from a third
            of the document up to all of it.
        tokenizer_name: Name or folder of the tokenizer; None is the shipped one.
        overwrite: Replace `folder` if it holds token shards.
        on_progress: Called after every batch with the numbers of documents and tokens so far.

    Returns:
        The shards, opened.
    """
    tokenizer = load_tokenizer(tokenizer_name)
    documents = synthetic_documents(
        num_documents, document_tokens, seed, split, tokenizer, recall_distance=recall_distance
    )
    with TokenShardWriter(
        folder,
        tokenizer,
        tokenizer_name or SHIPPED_TOKENIZER_NAME,
        with_recall_mask=True,
        overwrite=overwrite,
    ) as writer:
        while batch := list(itertools.islice(documents, _BATCH_DOCUMENTS)):
            texts = [document.text for document in batch]
            encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
            for document, encoding in zip(batch, encodings, strict=True):
                writer.append(
                    np.array(encoding.ids), len(document.text.encode()), _mask(document, encoding)
                )
            if on_progress is not None:
                on_progress(writer.num_documents, writer.num_tokens)
    return TokenShards(folder)


def _mask(document: SyntheticDocument, encoding: Encoding) -> np.ndarray:
    """Mark the tokens that lie in a recalled span."""
    starts, stops = np.array(encoding.offsets).T
    mask = np.zeros(len(starts), dtype=np.uint8)
    for span in document.recall_spans:
        mask[(stops > span.start) & (starts < span.end)] = 1
    return mask
