"""New memories from old ones: several merged, or one without its deleted documents.

Parts never change, so a part that is kept whole is hard-linked rather than copied where the file
system allows it.

Shapes: n chunks of a part, d documents of a part, E hidden size.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from gcattn.memory.saved.description import (
    DESCRIPTION,
    DeletedDocuments,
    Description,
    PartEntry,
    read_description,
    write_description,
)
from gcattn.memory.saved.part import Part, PartContent, write_part
from gcattn.storage.lock import LOCK_FILE, sole_writer
from gcattn.storage.removal import remove
from gcattn.storage.whole import remove_unfinished

_PARTS = "parts"


def merge_memories(folders: Sequence[str | Path], out: str | Path) -> None:
    """Merge memories of one model into a new one, which holds their documents in order.

    Args:
        folders: At least one.
        out: Created by this call.

    Raises:
        DamagedFolderError: One of them is not what was written.
        FileExistsError: `out` holds something.
        FileNotFoundError: One of them is no memory.
        ValueError: They were made by different models or kept in different ways, or one is not
            finished.
    """
    places = [Path(folder) for folder in folders]
    if not places:
        raise ValueError("Name at least one memory to merge.")
    found = [_finished(place) for place in places]
    first = found[0]
    for place, description in zip(places[1:], found[1:], strict=True):
        for name in ("model", "fingerprint", "dtype", "keys_values"):
            theirs, ours = getattr(description, name), getattr(first, name)
            # an empty memory has no dtype of its own
            if theirs != ours and not (name == "dtype" and not description.parts):
                raise ValueError(
                    f"{places[0]} and {place} cannot be merged: their {_SAID[name]} differ."
                )
    with _new_memory(Path(out)) as folder:
        parts: list[PartEntry] = []
        deleted: list[tuple[int, int]] = []
        num_documents = 0
        for place, description in zip(places, found, strict=True):
            parts += [
                _take_over(place, entry, folder, len(parts) + n)
                for n, entry in enumerate(description.parts)
            ]
            deleted += [(a + num_documents, b + num_documents) for a, b in description.deleted]
            num_documents += description.num_documents
        write_description(folder, replace(first, parts=tuple(parts), deleted=tuple(deleted)))


def export_memory(folder: str | Path, out: str | Path) -> None:
    """Make a new memory of all documents of one that are not deleted; their chunks stay the same.

    Args:
        folder: Folder of the memory.
        out: Created by this call.

    Raises:
        DamagedFolderError: The memory is not what was written.
        FileExistsError: `out` holds something.
        FileNotFoundError: There is no memory.
        ValueError: It is not finished.
    """
    place = Path(folder)
    description = _finished(place)
    with _new_memory(Path(out)) as made:
        parts: list[PartEntry] = []
        deleted = DeletedDocuments(list(description.deleted))
        number = 0  # of the first document that begins in the part
        for entry in description.parts:
            numbers = range(number - entry.continues, number - entry.continues + entry.documents)
            number = numbers.stop
            kept = [document not in deleted for document in numbers]
            if all(kept):
                parts.append(_take_over(place, entry, made, len(parts)))
            elif any(kept):
                content = _without(Part(place, entry), kept, description.model["hidden_size"])
                parts.append(write_part(made, len(parts), content))
        write_description(made, replace(description, parts=tuple(parts), deleted=()))


_SAID = {
    "model": "models' sizes",
    "fingerprint": "models' weights",
    "dtype": "number formats",
    "keys_values": "contents (one keeps keys and values, the other token ids)",
}


def _finished(folder: Path) -> Description:
    description = read_description(folder)
    if description.stream is not None:
        raise ValueError(f"{folder} is a saved stream, not a memory of documents.")
    if description.parts and not description.parts[-1].ends:
        raise ValueError(
            f"The last document of {folder} is not read to its end; finish the build first."
        )
    return description


@contextmanager
def _new_memory(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for parts; it is removed if the block fails.

    The description is written last: what a killed process leaves behind is no memory, and the next
    process removes it.
    """
    with sole_writer(folder):
        remove_unfinished(folder / DESCRIPTION)
        held = {path.name for path in folder.iterdir()} - {LOCK_FILE}
        if held - {_PARTS} or (folder / DESCRIPTION).exists():
            raise FileExistsError(f"{folder} exists already; choose another name or remove it.")
        remove(folder / _PARTS)
        (folder / _PARTS).mkdir()
        try:
            yield folder
        except BaseException:
            remove(folder / _PARTS)
            remove(folder / DESCRIPTION)
            raise


def _take_over(place: Path, entry: PartEntry, folder: Path, number: int) -> PartEntry:
    """Link or copy a part, after checking its head."""
    Part(place, entry)
    file = f"{_PARTS}/{number:06d}.safetensors"
    try:
        os.link(place / entry.file, folder / file)
    except OSError:  # another file system, or one without links
        shutil.copyfile(place / entry.file, folder / file)
    # the new memory does not continue the old one's build
    return replace(entry, file=file, cursor=None)


def _without(part: Part, kept: Sequence[bool], hidden_size: int) -> PartContent:
    """Read a part without some of its documents."""
    counts = part.documents.tolist()
    chunks = torch.tensor(kept).repeat_interleave(part.documents.long())
    numbers = chunks.nonzero().flatten()
    landmarks = torch.empty(part.num_chunks, hidden_size, dtype=part.dtype_of("landmarks"))
    part.read_landmarks(landmarks)
    pool = None
    if part.has_keys_values:
        pool = torch.empty(len(numbers), *part.chunk_shape, dtype=part.dtype_of("chunks"))
        for place, number in enumerate(numbers.tolist()):
            part.read_chunk(number, pool[place])
    ids = torch.from_numpy(part.token_ids(0, part.num_chunks))
    of_token = chunks.repeat_interleave(part.lengths.long())
    return PartContent(
        landmarks=landmarks[numbers],
        chunks=pool,
        lengths=part.lengths[numbers],
        token_ids=ids[of_token].to(part.dtype_of("token_ids")),
        lines=part.lines[numbers],
        documents=torch.tensor([n for n, stays in zip(counts, kept, strict=True) if stays]).int(),
        names=[name for name, stays in zip(part.names, kept, strict=True) if stays],
        continues=part.entry.continues and kept[0],
        ends=part.entry.ends or not kept[-1],
    )
