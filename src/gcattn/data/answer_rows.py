"""Training rows of whole examples, packed: labels on answers alone, chunks closed as prompts do.

Shapes: T tokens per row.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gcattn.chunking.breaks import CLOSES_BEFORE_END
from gcattn.chunking.labels import IGNORED
from gcattn.data.token_shards import TokenShards


class AnswerRows(Dataset[dict[str, Tensor]]):
    """Rows of exactly `sequence_length` tokens (T), as dicts of tensors [T].

    A row holds as many whole examples as fit, kept apart by "document_ids", and end-of-text tokens
    after them. "labels" are the tokens of answers; "chunk_breaks" close chunks where a prompt
    closes them when the model is asked.

    Args:
        shards: What `prepare_examples` wrote.
        sequence_length: Tokens per row, T.

    Raises:
        ValueError: The shards have no answers marked, or an example is longer than a row.
    """

    def __init__(self, shards: TokenShards, sequence_length: int) -> None:
        if shards.answer_mask is None:
            raise ValueError(
                f"{shards.folder} has no answers marked, which data.loss: answers needs; prepare "
                "it with gcattn finetune."
            )
        lengths = np.diff(shards.document_starts)
        if lengths.max() > sequence_length:
            raise ValueError(
                f"{shards.folder} holds an example of {lengths.max():,} tokens, rows have "
                f"{sequence_length:,}; raise data.sequence_length or prepare shorter ones."
            )
        self.shards = shards
        self.sequence_length = sequence_length
        self._rows = _packed(lengths, sequence_length)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        shape = self.sequence_length
        input_ids = np.full(shape, self.shards.eos_token_id, dtype=np.int64)
        labels = np.full(shape, IGNORED, dtype=np.int64)
        document_ids = np.full(shape, len(self._rows[index]), dtype=np.int64)
        breaks = np.zeros(shape, dtype=bool)
        place = 0
        assert self.shards.answer_mask is not None
        for number, example in enumerate(self._rows[index]):
            start, stop = self.shards.document_starts[example : example + 2].tolist()
            here = slice(place, place + stop - start)
            ids = self.shards.tokens(start, stop).astype(np.int64)
            answers = self.shards.answer_mask[start:stop].astype(bool)
            input_ids[here], document_ids[here] = ids, number
            labels[here][answers] = ids[answers]
            begins = np.flatnonzero(answers & ~np.append(False, answers[:-1]))
            for behind in CLOSES_BEFORE_END:
                breaks[place + begins[begins >= behind] - behind] = True
            place += stop - start
        row = {
            "input_ids": input_ids,
            "labels": labels,
            "document_ids": document_ids,
            "chunk_breaks": breaks,
        }
        return {name: torch.from_numpy(values) for name, values in row.items()}


def _packed(lengths: np.ndarray, sequence_length: int) -> list[list[int]]:
    """Put examples into rows: the longest left, then the shortest ones as long as they fit."""
    order = np.argsort(-lengths, kind="stable").tolist()
    rows: list[list[int]] = []
    first, last = 0, len(order) - 1
    while first <= last:
        row, used = [order[first]], int(lengths[order[first]])
        first += 1
        while first <= last and used + lengths[order[last]] <= sequence_length:
            row.append(order[last])
            used += int(lengths[order[last]])
            last -= 1
        rows.append(row)
    return rows
