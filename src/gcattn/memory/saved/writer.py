"""Write a memory document by document, part by part; written parts never change.

Shapes: n chunks, t tokens, S slots per chunk, G key/value heads, D head dim, E hidden size.
"""

import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from gcattn.memory.fingerprint import base_of, check_fingerprint, fingerprint
from gcattn.memory.saved.description import (
    DESCRIPTION,
    Description,
    read_description,
    sizes_of,
    write_description,
)
from gcattn.memory.saved.documents import Document, DocumentTable
from gcattn.memory.saved.part import Part, PartContent, write_part
from gcattn.storage.lock import sole_writer
from gcattn.storage.whole import remove_unfinished

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

# a part is written once it would hold this many bytes or chunks
PART_BYTES, PART_CHUNKS = 2**28, 2**16


class MemoryWriter:
    """Make a memory, or add documents to one; a context manager.

    One process writes at a time; any number may read. A killed writer loses what was added after
    the last `checkpoint` that wrote a part; a new one continues from there.

    Args:
        folder: Created if missing.
        model: The model that makes the chunks.
        keys_values: Store keys and values. Without them it takes about a hundredth of the
            bytes, and chunks are recomputed from token ids when they are read. An existing memory
            keeps its own choice.
        part_bytes: Minimum size of every part but the last.

    Raises:
        FolderInUseError: Another process writes into the folder.
        ValueError: The memory there is damaged, or was made by other weights.
    """

    def __init__(
        self,
        folder: str | Path,
        model: nn.Module,
        *,
        keys_values: bool = True,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.folder = Path(folder)
        config: DRTConfig = base_of(model).config  # type: ignore[assignment]
        if config.retrieval_method in ("fixed", "none"):
            raise ValueError(
                f'A model with retrieval_method = "{config.retrieval_method}" makes no memory that '
                "can be kept."
            )
        self._part_bytes = part_bytes
        self._resources = ExitStack()
        self._resources.enter_context(sole_writer(self.folder))
        try:
            self._description = self._begin(model, config, keys_values)
            parts = [Part(self.folder, entry) for entry in self._description.parts]
        except BaseException:
            self._resources.close()
            raise
        self._table = DocumentTable(parts, self._description.deleted)
        self._ids_dtype = torch.int32 if config.vocab_size > 2**16 else torch.uint16
        pool = (2, config.chunk_size, config.num_key_value_heads, config.head_dim)
        self._shapes = (config.hidden_size,), pool
        last = self._description.parts[-1] if parts else None
        self._is_open = last is not None and not last.ends
        self._first_continues = self._is_open
        self._held: list[tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]] = []
        self._held_bytes = self._held_chunks = 0
        self._counts: list[int] = [0] if self._is_open else []  # chunks of held documents
        self._names: list[dict[str, Any]] = [self._table.names[-1]] if self._is_open else []

    @property
    def description(self) -> Description:
        """The description of what has been written so far."""
        return self._description

    @property
    def cursor(self) -> Any:
        """The cursor of the last written `checkpoint`; None at the beginning."""
        parts = self._description.parts
        return parts[-1].cursor if parts else None

    @property
    def num_documents(self) -> int:
        """Number of written documents, an unfinished one included."""
        return len(self._table)

    @property
    def unfinished(self) -> Document | None:
        """The written part of the document that a killed writer left open.

        `append` continues with it until `end` is called.
        """
        parts = self._description.parts
        return self._table[-1] if parts and not parts[-1].ends else None

    def begin(self, name: str, **notes: Any) -> None:
        """Begin a document.

        Args:
            name: Its origin, such as a path.
            **notes: Other notes to keep, as JSON: size, time of the last change, …

        Raises:
            ValueError: A document is open.
        """
        if self._is_open:
            raise ValueError("A document is open; call end() before the next one begins.")
        self._is_open = True
        self._counts.append(0)
        self._names.append({"name": name, **notes})

    def append(
        self,
        landmarks: Tensor,
        keys: Tensor,
        values: Tensor,
        lengths: Tensor,
        token_ids: Tensor,
        lines: Tensor | None = None,
    ) -> None:
        """Add finished chunks to the open document.

        Args:
            landmarks: [n, E].
            keys: [n, S, G, D].
            values: Same shape as `keys`.
            lengths: Tokens of each chunk, [n].
            token_ids: Of all chunks in their order, [t]; t is the sum of `lengths`.
            lines: Line of the source on which each chunk begins, [n]; 0 if unknown.

        Raises:
            ValueError: No document is open, or shapes disagree.
        """
        if not self._is_open:
            raise ValueError("No document is open; call begin(name) first.")
        num_tokens = int(lengths.sum())
        if len(token_ids) != num_tokens:
            raise ValueError(
                f"token_ids must be the {num_tokens} ids that lengths add up to, "
                f"got {len(token_ids)}."
            )
        dtype = str(landmarks.dtype).removeprefix("torch.")
        if dtype != self._description.dtype:
            if self._description.parts or self._held:
                raise ValueError(
                    f"The memory in {self.folder} holds {self._description.dtype}, got {dtype}: "
                    f"run the model in {self._description.dtype}."
                )
            self._description = replace(self._description, dtype=dtype)
        chunks = None
        if self._description.keys_values:
            chunks = torch.stack([keys, values], dim=1).detach().cpu()
        if lines is None:
            lines = torch.zeros(len(lengths), dtype=torch.int32)
        ids = token_ids.detach().cpu()
        held = (
            landmarks.detach().cpu(),
            chunks,
            lengths.cpu().to(torch.int32),
            ids.to(torch.int32).to(self._ids_dtype),
            lines.cpu().to(torch.int32),
        )
        self._held.append(held)
        self._held_bytes += sum(x.numel() * x.element_size() for x in held if x is not None)
        self._held_chunks += len(lengths)
        self._counts[-1] += len(lengths)

    def end(self) -> None:
        """Complete the open document."""
        if not self._is_open:
            raise ValueError("No document is open; call begin(name) first.")
        self._is_open = False

    def checkpoint(self, cursor: Any = None) -> bool:
        """Write a part if enough chunks are pending; parts end nowhere else.

        Call it wherever a build may resume, such as after every batch of documents: where parts end
        then depends on what was appended, never on when a process died.

        Args:
            cursor: Where the build continues, as JSON; the property `cursor` returns it.

        Returns:
            Whether a part was written.

        Raises:
            DiskFullError: The disk is full; the memory is unchanged, and pending chunks are kept.
        """
        if self._held_bytes < self._part_bytes and self._held_chunks < PART_CHUNKS:
            return False
        self._write(cursor)
        return True

    def close(self, cursor: Any = None) -> None:
        """Write what is pending, and release the folder to other writers.

        Raises:
            DiskFullError: The disk is full; pending chunks are lost, the memory is intact.
        """
        try:
            if len(self._names) > self._is_open or self._held:
                self._write(cursor)
        finally:
            self._resources.close()

    def delete(self, documents: Iterable[int]) -> None:
        """Delete documents by number; they are never retrieved again.

        Their bytes stay until the memory is exported.

        Raises:
            IndexError: There is no such document.
        """
        description = self._description.without(documents, self.folder)
        write_description(self.folder, description)
        self._description = description

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *args: object) -> None:
        if kind is None:
            self.close()
        else:
            self._resources.close()

    def _begin(self, model: nn.Module, config: "DRTConfig", keys_values: bool) -> Description:
        if not (self.folder / DESCRIPTION).exists():
            description = Description(sizes_of(config), fingerprint(model), "float32", keys_values)
            write_description(self.folder, description)
        description = read_description(self.folder)
        description.check_sizes(self.folder, config)
        check_fingerprint(description.fingerprint, model, f"The memory in {self.folder}")
        if description.stream is not None:
            raise ValueError(f"{self.folder} is a saved stream; documents go into a memory.")
        self._remove_abandoned(description)
        return description

    def _remove_abandoned(self, description: Description) -> None:
        """Delete what a killed writer left: unlisted parts and half-written files."""
        listed = {Path(part.file).name for part in description.parts}
        remove_unfinished(self.folder / DESCRIPTION)
        (self.folder / "parts").mkdir(exist_ok=True)  # a writer may have died before creating it
        for file in (self.folder / "parts").iterdir():
            name = file.name
            ours = re.fullmatch(r"\d+\.safetensors|\.\d+\.safetensors\..*", name)
            if ours and name not in listed:
                file.unlink()

    def _write(self, cursor: Any) -> None:
        landmarks, chunks, lengths, ids, lines = zip(self._nothing(), *self._held, strict=True)
        content = PartContent(
            landmarks=torch.cat(landmarks),
            chunks=torch.cat(chunks) if self._description.keys_values else None,
            lengths=torch.cat(lengths),
            token_ids=torch.cat(ids),
            lines=torch.cat(lines),
            documents=torch.tensor(self._counts, dtype=torch.int32),
            names=self._names,
            continues=self._first_continues,
            ends=not self._is_open,
        )
        entry = write_part(self.folder, len(self._description.parts), content, cursor)
        description = self._description.with_part(entry)
        write_description(self.folder, description)
        self._description = description
        self._table.add(Part(self.folder, entry))
        self._held.clear()
        self._held_bytes = self._held_chunks = 0
        self._first_continues = self._is_open
        self._names = self._names[-1:] if self._is_open else []
        self._counts = [0] if self._is_open else []

    def _nothing(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
        """Return empty tensors in the form of pending chunks."""
        dtype = getattr(torch, self._description.dtype)
        landmarks, chunks = (torch.zeros(0, *shape, dtype=dtype) for shape in self._shapes)
        integers = torch.zeros(0, dtype=torch.int32)
        ids = integers.to(self._ids_dtype)
        return landmarks, chunks if self._description.keys_values else None, integers, ids, integers
