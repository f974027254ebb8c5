"""The documents of a saved memory: arrays over all parts; names are parsed on demand.

Shapes: D documents, N chunks of the memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcattn.memory.saved.description import DeletedDocuments
from gcattn.memory.saved.part import Part


@dataclass(frozen=True)
class Document:
    """One document of a memory."""

    number: int
    name: str
    notes: dict[str, Any]
    first_chunk: int  # of the memory
    num_chunks: int
    num_tokens: int
    is_deleted: bool


class Names(Sequence[dict[str, Any]]):
    """The builder's notes on each document; a part's notes are parsed when first needed."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._starts = [0]

    def add(self, part: Part) -> None:
        """Add a part, whose first document may be the last one of the part before."""
        self._parts.append(part)
        self._starts.append(self._starts[-1] + part.entry.documents - part.entry.continues)

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (names for part in self._parts for names in part.names[part.entry.continues :])

    def __getitem__(self, number: Any) -> Any:
        n = range(len(self))[number]
        part = int(np.searchsorted(self._starts, n, side="right")) - 1
        at = n - self._starts[part] + self._parts[part].entry.continues
        return self._parts[part].names[at]


class DocumentTable(Sequence[Document]):
    """All documents by number, in the order in which they were added.

    Args:
        parts: Of the memory.
        deleted: Ranges of deleted documents, (first, last).
    """

    def __init__(self, parts: Sequence[Part], deleted: Sequence[tuple[int, int]] = ()) -> None:
        self.names = Names()
        self._runs: list[np.ndarray] = []  # each [d, 2], chunks and tokens of documents
        self._all: np.ndarray | None = None  # [D + 1, 2], chunks and tokens before each document
        self._deleted = DeletedDocuments(list(deleted))
        for part in parts:
            self.add(part)

    def add(self, part: Part) -> None:
        """Append a part."""
        self.names.add(part)
        counts = part.documents.numpy().astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(counts)])
        run = np.stack([counts, np.diff(part.first_tokens[ends])], axis=1)
        if part.entry.continues:
            self._runs[-1][-1] += run[0]
            run = run[1:]
        if len(run):
            self._runs.append(run)
        self._all = None

    @property
    def before(self) -> np.ndarray:
        """Chunks and tokens before each document, and in all, [D + 1, 2]."""
        if self._all is None:
            runs = np.concatenate(self._runs) if self._runs else np.zeros((0, 2), dtype=np.int64)
            self._all = np.concatenate([np.zeros((1, 2), dtype=np.int64), np.cumsum(runs, axis=0)])
        return self._all

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        n = range(len(self))[number]
        (chunk, token), (end, last) = self.before[n], self.before[n + 1]
        notes = dict(self.names[n])
        return Document(
            number=n,
            name=notes.pop("name"),
            notes=notes,
            first_chunk=int(chunk),
            num_chunks=int(end - chunk),
            num_tokens=int(last - token),
            is_deleted=n in self._deleted,
        )

    def __iter__(self) -> Iterator[Document]:
        return (self[n] for n in range(len(self)))

    @property
    def num_deleted(self) -> int:
        """Documents that are deleted."""
        return len(self._deleted)

    def of_chunk(self, chunk: int) -> Document:
        """Return the document of a chunk.

        Raises:
            IndexError: There is no such chunk.
        """
        if not 0 <= chunk < self.before[-1, 0]:
            raise IndexError(f"The memory has no chunk {chunk}.")
        # a document without chunks begins where the next one does; the last of these has the chunk
        document = self[int(np.searchsorted(self.before[:, 0], chunk, side="right")) - 1]
        assert isinstance(document, Document)
        return document

    def chunks_of(self, numbers: Iterable[int]) -> Tensor:
        """Return which chunks are of the given documents, bool [N].

        Raises:
            IndexError: There is no such document.
        """
        inside = torch.zeros(int(self.before[-1, 0]), dtype=torch.bool)
        for n in numbers:
            if not 0 <= n < len(self):
                raise IndexError(f"The memory has no document {n}; it has {len(self)}.")
            inside[self.before[n, 0] : self.before[n + 1, 0]] = True
        return inside

    def visible_chunks(self) -> Tensor | None:
        """Return which chunks are of documents that are not deleted, bool [N]; None: all."""
        if not self._deleted.ranges:
            return None
        visible = torch.ones(int(self.before[-1, 0]), dtype=torch.bool)
        for first, last in self._deleted.ranges:
            visible[self.before[first, 0] : self.before[last + 1, 0]] = False
        return visible
