"""A saved memory, opened: read-only, shared by any number of streams.

Shapes: N chunks, U chunks asked for, S slots per chunk, G key/value heads, D head dim, E hidden
size.
"""

import hashlib
import threading
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn

from gcattn.memory.fingerprint import base_of, check_fingerprint
from gcattn.memory.saved.description import Description, read_description
from gcattn.memory.saved.documents import Document, DocumentTable
from gcattn.memory.saved.files import PartFiles
from gcattn.memory.saved.landmarks import ExactLandmarks
from gcattn.memory.saved.part import Part
from gcattn.memory.saved.quantised_landmarks import QuantisedLandmarks
from gcattn.memory.shared_chunks import SharedLandmarks
from gcattn.memory.stores import (
    ChunkReader,
    DiskReader,
    MemoryTier,
    NewChunks,
    RecomputeReader,
    check_tier,
    make_store,
)

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

LandmarkForm = Literal["exact", "int8"]

# a memory of at most this many bytes is read whole when it is opened
CHECKED_AT_ONCE = 2**26
# chunks loaded at a time
LOADED_AT_ONCE = 256


@dataclass(frozen=True)
class Passage:
    """The origin of a chunk."""

    document: Document
    first_token: int  # of the document
    token_ids: Tensor  # int64 [n]
    line: int  # of the document, on which the chunk begins; 0: not known


class SavedMemory:
    """Chunks of many documents; made by `open_memory`.

    Attributes:
        folder: Its folder.
        description: Sizes, fingerprint and parts.
        documents: Document by number, deleted ones included.
        tier: Where keys and values come from.
    """

    def __init__(self, folder: Path, tier: MemoryTier | None, landmarks: LandmarkForm) -> None:
        if landmarks not in get_args(LandmarkForm):
            raise ValueError(f'landmarks must be "exact" or "int8", got {landmarks!r}.')
        self.folder = folder
        self.description: Description = read_description(folder)
        if tier is None:
            tier = "disk" if self.description.keys_values else "recompute"
        check_tier(tier)
        self.tier: MemoryTier = tier
        if self.description.stream is not None:
            raise ValueError(f"{folder} is a saved cache, not a memory: load_cache loads it.")
        if not self.description.keys_values and tier != "recompute":
            raise ValueError(
                f'The memory in {folder} holds no keys and values: open it with tier="recompute".'
            )
        parts = [Part(folder, entry) for entry in self.description.parts]
        self.documents = DocumentTable(parts, self.description.deleted)
        model, dtype = self.description.model, getattr(torch, self.description.dtype)
        shape = (2, model["chunk_size"], model["num_key_value_heads"], model["head_dim"])
        self._files = PartFiles(parts, self.documents, shape, dtype)
        self._bound = _Bound(self._files, tier, landmarks, model["hidden_size"])
        self._visible = self.documents.visible_chunks()
        if sum(part.entry.bytes for part in parts) <= CHECKED_AT_ONCE:
            self.verify()

    @property
    def num_chunks(self) -> int:
        """Number of chunks N, those of deleted documents included."""
        return len(self._files)

    @property
    def num_tokens(self) -> int:
        """Number of tokens, those of deleted documents included."""
        return self.description.num_tokens

    @property
    def landmarks(self) -> SharedLandmarks:
        """The landmarks, by which chunks are chosen; a model must be bound."""
        return self._bound.landmarks(self._visible)

    @property
    def reader(self) -> ChunkReader:
        """The keys and values; a model must be bound."""
        return self._bound.reader

    def identity(self, num_chunks: int | None = None) -> str:
        """Return a hash of the first `num_chunks` chunks, which end with a part; by default of all.

        It stays the same while the memory only grows.
        """
        digest, seen = hashlib.sha256(self.description.fingerprint.encode()), 0
        for entry in self.description.parts:
            if num_chunks is not None and seen >= num_chunks:
                break
            digest.update(entry.head_sha256.encode())
            seen += entry.chunks
        return digest.hexdigest()

    def may_be_read(self, chunks: Tensor) -> Tensor:
        """Return which of these chunks, by number, belong to visible documents, bool."""
        if self._visible is None:
            return torch.ones_like(chunks, dtype=torch.bool)
        return self._visible[chunks]

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place, "device", "host" and "disk"; a model must be bound."""
        held = [self._bound.landmarks(None).num_bytes(), self._bound.reader.num_bytes()]
        on_disk = {"disk": sum(part.entry.bytes for part in self._files.parts)}
        places = ("device", "host")
        return {place: sum(bytes_.get(place, 0) for bytes_ in held) for place in places} | on_disk

    def verify(self) -> None:
        """Read every byte and compare its checksum.

        Raises:
            DamagedFolderError: Something has changed since it was written.
        """
        for part in self._files.parts:
            part.verify()

    def check_sizes(self, config: "DRTConfig") -> None:
        """Refuse a model of other sizes.

        Raises:
            ValueError: A size differs.
        """
        self.description.check_sizes(self.folder, config)

    def check(self, model: nn.Module) -> None:
        """Refuse a model that did not make the memory; a stream does this itself.

        Raises:
            ValueError: It has other sizes or other weights.
        """
        self.check_sizes(base_of(model).config)  # type: ignore[arg-type]
        check_fingerprint(self.description.fingerprint, model, f"The memory in {self.folder}")

    def bind(self, model: nn.Module) -> None:
        """Register the model that reads; a stream does this itself.

        The first model decides on which device landmarks are kept, and keys and values in the tiers
        that load them.

        Raises:
            ValueError: It did not make the memory.
        """
        self.check(model)
        self._bound.bind(base_of(model))

    def only(self, documents: Iterable[int]) -> Self:
        """Return a view of the memory in which only these documents are visible."""
        return self._seeing(self.documents.chunks_of(documents))

    def without(self, documents: Iterable[int]) -> Self:
        """Return a view of the memory in which these documents are not visible."""
        return self._seeing(~self.documents.chunks_of(documents))

    def passage(self, chunk: int) -> Passage:
        """Return the origin of a chunk, by its number as in `output.retrieval[r].indices`.

        Raises:
            IndexError: There is no such chunk.
            DamagedFolderError: Its token ids have changed since they were written.
        """
        document = self.documents.of_chunk(chunk)
        part, at = self._files.locate(chunk)
        before = sum(
            int(run.first_tokens[end] - run.first_tokens[first])
            for run, first, end in self._files.runs(document.first_chunk, chunk)
        )
        return Passage(document, before, self._files.token_ids(chunk), int(part.lines[at]))

    def token_ids(self, first_chunk: int, end_chunk: int) -> Tensor:
        """Return the ids of consecutive chunks, int64 [t]."""
        runs = [
            part.token_ids(first, end)
            for part, first, end in self._files.runs(first_chunk, end_chunk)
        ]
        return torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int32), *runs])).long()

    def _seeing(self, chunks: Tensor) -> Self:
        other = copy(self)
        other._visible = chunks if self._visible is None else chunks & self._visible
        return other

    def __deepcopy__(self, memo: object) -> Self:
        return self  # it is never written into


class _Bound:
    """What a memory keeps for a model, shared by all of its views; made when first needed."""

    def __init__(
        self, files: PartFiles, tier: MemoryTier, form: LandmarkForm, hidden_size: int
    ) -> None:
        self._files, self._tier, self._form, self._hidden_size = files, tier, form, hidden_size
        self._device: torch.device | None = None
        self._landmarks: ExactLandmarks | QuantisedLandmarks | None = None
        self._reader: ChunkReader | None = None
        self._lock = threading.RLock()

    def bind(self, model: Any) -> None:
        """Serve a model."""
        with self._lock:
            device = model.embed_tokens.weight.device
            if self._device not in (None, device):
                raise ValueError(
                    f"The memory serves a model on {self._device}, this one is on {device}: "
                    "open it once for each device."
                )
            self._device = device
            self.reader.bind(model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        if self._device is None:
            raise ValueError("No model reads the memory yet; call bind(model) first.")
        return self._device

    def landmarks(self, visible: Tensor | None) -> SharedLandmarks:
        """Return the landmarks, some of which may be chosen, bool [N]; None: all."""
        with self._lock:
            if self._landmarks is None:
                self._landmarks = self._read_landmarks()
        return self._landmarks.seeing(None if visible is None else visible.to(self.device))

    # what is read outlives the call that asks first, and is filled by threads, which know no mode
    @torch.inference_mode(False)
    def _read_landmarks(self) -> ExactLandmarks | QuantisedLandmarks:
        if self._form == "exact":
            return ExactLandmarks(self._files.landmarks(self._hidden_size, self.device), None)
        in_host_memory = self._files.landmarks(self._hidden_size, torch.device("cpu"))
        return QuantisedLandmarks(in_host_memory, self.device)

    @property
    def reader(self) -> ChunkReader:
        """Return the reader of keys and values."""
        with self._lock:
            if self._reader is None:
                self._reader = self._make_reader()
        return self._reader

    @torch.inference_mode(False)
    def _make_reader(self) -> ChunkReader:
        if self._tier == "disk":
            return DiskReader(self._files, self.device)
        if self._tier == "recompute":
            return RecomputeReader(self._files, self.device)
        store = make_store(self._tier, self.device)
        store.expect(len(self._files))
        for chunks, lengths in self._files.batches(LOADED_AT_ONCE):
            if self._tier in ("device", "host-int8"):  # a GPU rounds to 8 bits faster
                chunks, lengths = chunks.to(self.device), lengths.to(self.device)
            store.append(NewChunks(chunks[:, 0], chunks[:, 1], lengths))
        return store


def open_memory(
    folder: str | Path, tier: MemoryTier | None = None, *, landmarks: LandmarkForm = "exact"
) -> SavedMemory:
    """Open a memory that `MemoryWriter` made; only the heads of parts are read.

    Everything else is checked when it is read; a memory of less than 64 MB is read and checked at
    once.

    Args:
        folder: Its folder.
        tier: Where keys and values come from when they are retrieved: "disk" reads them from the
            folder; "device", "host" and "host-int8" load all of them first; "recompute" makes them
            again from token ids. By default "disk", or "recompute" if there are only token ids.
        landmarks: "exact" keeps landmarks unchanged on the model's device; "int8" keeps them there
            in 8 bits, and the exact ones in host memory. Both choose the same chunks.

    Raises:
        FileNotFoundError: There is no memory.
        DamagedFolderError: It is not what was written, or of another version.
        ValueError: There is no such tier or form, or the memory holds no keys and values for it.
    """
    return SavedMemory(Path(folder), tier, landmarks)
