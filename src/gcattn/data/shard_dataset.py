"""Training windows over token shards: the dataset that the trainer's seeded sampler walks."""

import logging
from random import Random
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gcattn.data.token_shards import TokenShards

Documents = Literal["ignore", "pack", "separate"]
_logger = logging.getLogger(__name__)


class ShardDataset(Dataset[dict[str, Tensor]]):
    """Windows of exactly `sequence_length` tokens (T), as dicts of "input_ids" and "labels" [T].

    A window is cut from the corpus only when it is asked for, so that resuming at any position
    costs nothing. The labels equal the inputs: the model shifts them.

    Args:
        shards: The corpus.
        sequence_length: Tokens per window, T.
        documents: "ignore" reads across documents, with only the end-of-text token between them, as
            the paper does; "pack" cuts the same windows and adds "document_ids" [T], counted from 0
            in each window; "separate" keeps every window inside one document.
        library_rate: Share of the windows of "ignore" that have several "document_ids", as those of
            "pack" have; the others then have a single one.
        include_recall_mask: Add "recall_mask" [T], one where a token repeats an earlier fact.

    Raises:
        ValueError: An argument is out of range, no window fits, or there is no recall mask.

    Attributes:
        num_skipped_documents: Documents that "separate" left out because they are shorter than T.
    """

    def __init__(
        self,
        shards: TokenShards,
        sequence_length: int,
        documents: Documents = "ignore",
        *,
        library_rate: float = 0.0,
        include_recall_mask: bool = False,
    ) -> None:
        if documents not in get_args(Documents):
            raise ValueError(f"documents must be one of {get_args(Documents)}, got {documents!r}.")
        if sequence_length < 2:
            raise ValueError(f"sequence_length must be at least 2, got {sequence_length}.")
        if not 0 <= library_rate <= 1 or (library_rate and documents != "ignore"):
            raise ValueError(
                "library_rate must lie in [0, 1], and be 0 unless documents is 'ignore', got "
                f"{library_rate} and {documents!r}."
            )
        if include_recall_mask and shards.recall_mask is None:
            raise ValueError(
                f"{shards.folder} has no recall mask; only the synthetic corpus has one."
            )
        self.shards = shards
        self.sequence_length = sequence_length
        self.documents = documents
        self.library_rate = library_rate
        self.include_recall_mask = include_recall_mask
        self.num_skipped_documents = 0
        if documents == "separate":
            lengths = np.diff(shards.document_starts)
            self._starts = _starts_inside_documents(
                shards.document_starts, lengths, sequence_length
            )
            self.num_skipped_documents = int((lengths < sequence_length).sum())
        else:
            self._starts = np.arange(shards.num_tokens // sequence_length) * sequence_length
        if len(self._starts) == 0:
            raise ValueError(
                f"No window of sequence_length {sequence_length} fits into {shards.folder} "
                f"({shards.num_tokens} tokens, {shards.num_documents} documents, "
                f"documents={documents!r}); lower sequence_length or prepare more text."
            )
        if self.num_skipped_documents:
            _logger.warning(
                "%d of %d documents are shorter than %d tokens and are skipped.",
                self.num_skipped_documents,
                shards.num_documents,
                sequence_length,
            )

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        start = int(self._starts[index])
        stop = start + self.sequence_length
        input_ids = torch.from_numpy(self.shards.tokens(start, stop).astype(np.int64))
        window = {"input_ids": input_ids, "labels": input_ids.clone()}
        if self.documents == "pack" or self.library_rate:
            ids = torch.from_numpy(self._document_ids(start, stop))
            # the same windows in every run
            keeps = self.documents == "pack" or Random(start).random() < self.library_rate
            window["document_ids"] = ids if keeps else torch.zeros_like(ids)
        if self.include_recall_mask and self.shards.recall_mask is not None:
            mask = self.shards.recall_mask[start:stop].astype(np.int64)
            window["recall_mask"] = torch.from_numpy(mask)
        return window

    def _document_ids(self, start: int, stop: int) -> np.ndarray:
        """Number the documents of a window from 0; an end-of-text token belongs to what it ends."""
        positions = np.arange(start, stop)
        numbers = np.searchsorted(self.shards.document_starts, positions, side="right")
        return (numbers - numbers[0]).astype(np.int64)


def _starts_inside_documents(
    document_starts: np.ndarray, lengths: np.ndarray, sequence_length: int
) -> np.ndarray:
    """Return where each window starts when a document gives as many whole windows as fit."""
    counts = lengths // sequence_length
    first_window = np.cumsum(counts) - counts
    numbers = np.arange(counts.sum()) - np.repeat(first_window, counts)
    return np.repeat(document_starts[:-1], counts) + numbers * sequence_length
