"""A saved memory, opened: read-only, shared by any number of streams.

Shapes: N chunks, U chunks asked for, S slots per chunk, G key/value heads, D head dim, E hidden
size.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from gcattn.memory.fingerprint import base_of, fingerprint
from gcattn.memory.saved.description import Description, read_description
from gcattn.memory.saved.documents import Document, DocumentTable
from gcattn.memory.saved.part import Part

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

# a memory of at most so many bytes is read as a whole when it is opened
CHECKED_AT_ONCE = 2**26


@dataclass(frozen=True)
class Passage:
    """Where a chunk comes from."""

    document: Document
    first_token: int  # of the document
    token_ids: Tensor  # int64 [n]
    line: int  # of the document, on which the chunk begins; 0: not known


class SavedMemory:
    """Chunks of many documents; made by `open_memory`.

    Attributes:
        folder: Where it lies.
        description: Sizes, fingerprint and parts.
        documents: Document by number, deleted ones included.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description: Description = read_description(folder)
        self._parts = [Part(folder, entry) for entry in self.description.parts]
        counts = [part.num_chunks for part in self._parts]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.documents = DocumentTable(self._parts, self.description.deleted)
        self._visible = self.documents.visible_chunks()
        if sum(part.entry.bytes for part in self._parts) <= CHECKED_AT_ONCE:
            self.verify()

    @property
    def num_chunks(self) -> int:
        """Chunks N, those of deleted documents included."""
        return int(self._starts[-1])

    @property
    def num_tokens(self) -> int:
        """Tokens, those of deleted documents included."""
        return self.description.num_tokens

    def verify(self) -> None:
        """Read every byte and compare its checksum.

        Raises:
            DamagedFolderError: Something has changed since it was written.
        """
        for part in self._parts:
            part.verify()

    def check(self, model: nn.Module) -> None:
        """Refuse a model that did not make the memory; a stream does this by itself.

        Raises:
            ValueError: It has other sizes or other weights.
        """
        config: DRTConfig = base_of(model).config  # type: ignore[assignment]
        self.description.check_sizes(self.folder, config)
        self.description.check_fingerprint(self.folder, fingerprint(model))

    def only(self, documents: Iterable[int]) -> Self:
        """Return the same memory in which nothing but these documents is found."""
        return self._seeing(self.documents.chunks_of(documents))

    def without(self, documents: Iterable[int]) -> Self:
        """Return the same memory in which these documents are not found."""
        return self._seeing(~self.documents.chunks_of(documents))

    def passage(self, chunk: int) -> Passage:
        """Return where a chunk comes from, by its number as in `output.retrieval[r].indices`.

        Raises:
            IndexError: There is no such chunk.
            DamagedFolderError: Its token ids have changed since they were written.
        """
        document = self.documents.of_chunk(chunk)
        part, at = self._place(chunk)
        before = document.first_chunk
        token = sum(
            int(part.first_tokens[end - start] - part.first_tokens[first - start])
            for part, start, first, end in self._runs(before, chunk)
        )
        ids = torch.from_numpy(part.token_ids(at, at + 1)).long()
        return Passage(document, token, ids, int(part.lines[at]))

    def token_ids(self, first_chunk: int, end_chunk: int) -> Tensor:
        """Return the ids of a run of chunks, int64 [t]: of a document's, its whole text."""
        runs = [
            part.token_ids(first - start, end - start)
            for part, start, first, end in self._runs(first_chunk, end_chunk)
        ]
        return torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int32), *runs])).long()

    def _seeing(self, chunks: Tensor) -> Self:
        other = copy(self)
        other._visible = chunks if self._visible is None else chunks & self._visible
        return other

    def _place(self, chunk: int) -> tuple[Part, int]:
        n = int(np.searchsorted(self._starts, chunk, side="right")) - 1
        return self._parts[n], chunk - int(self._starts[n])

    def _runs(self, first: int, end: int) -> Sequence[tuple[Part, int, int, int]]:
        """Return parts that hold chunks `first` … `end - 1`: start of the part, first and end."""
        return [
            (part, int(start), max(first, int(start)), min(end, int(stop)))
            for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False)
            if start < end and stop > first
        ]

    def __deepcopy__(self, memo: object) -> Self:
        return self  # it is never written into


def open_memory(folder: str | Path) -> SavedMemory:
    """Open a memory that `MemoryWriter` made; heads of parts are read, and nothing more.

    Chunks are checked when they are read; a memory of less than 64 MB is read and checked at once.

    Args:
        folder: Where it lies.

    Raises:
        FileNotFoundError: There is no memory.
        DamagedFolderError: It is not what was written, or of another version.
    """
    return SavedMemory(Path(folder))
