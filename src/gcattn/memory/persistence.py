"""Save the state of a stream and load it again: read a document once, ask about it many times.

A saved stream is a memory: its finished chunks are in parts like those of any memory. One more
file, `stream.safetensors`, holds the rest: windows, open chunk, positions, and which rows have
which chunks. A stream on top of a shared memory records which one, and is loaded on top of it.

Shapes: B batch, N chunks of the longest row, P chunks in the store, S slots per chunk.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gcattn.memory.cache import DRTCache
from gcattn.memory.fingerprint import fingerprint
from gcattn.memory.former_cache import read_former_cache
from gcattn.memory.saved.description import (
    DESCRIPTION,
    FORMER,
    Description,
    PartEntry,
    read_description,
    sizes_of,
    write_description,
)
from gcattn.memory.saved.memory import SavedMemory
from gcattn.memory.saved.part import Part, PartContent, write_part
from gcattn.memory.saved.writer import PART_BYTES
from gcattn.memory.stores import MemoryTier
from gcattn.storage.full_disk import DiskFullError
from gcattn.storage.manifest import DamagedFolderError, check_folder
from gcattn.storage.whole import new_folder

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

TENSORS = "stream.safetensors"


def save_cache(cache: DRTCache, folder: str | Path) -> None:
    """Write a cache and its own chunks into a new folder.

    Args:
        cache: It must have read something.
        folder: Created by this call.

    Raises:
        DiskFullError: The disk is full.
        FileExistsError: The folder is there already.
        ValueError: Nothing has been read with the cache, or its model is gone.
    """
    folder = Path(folder)
    if not cache.is_initialized:
        raise ValueError("The cache is empty: run the model with it before saving it.")
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose another name or remove it.")
    model = cache.model
    made_by = cache.made_by if model is None else fingerprint(model)
    if made_by is None:
        raise ValueError(
            "The model that filled the cache is not known any more: save the cache while the model "
            "is there, after a call with it."
        )
    shared = cache.memory.shared
    if shared is not None and not isinstance(shared, SavedMemory):
        raise ValueError("A cache is saved on top of a memory that open_memory opened, or of none.")
    try:
        with new_folder(folder) as unfinished:
            _write(cache, made_by, shared, unfinished)
    except DiskFullError as error:  # it may name a file of the hidden folder
        raise DiskFullError(
            f"The disk is full: {folder} could not be written; free some space and try again."
        ) from error


def load_cache(
    folder: str | Path,
    config: "DRTConfig",
    *,
    memory_tier: MemoryTier | None = None,
    memory: SavedMemory | None = None,
    device: str | torch.device = "cpu",
) -> DRTCache:
    """Load a cache that `save_cache` wrote; the tier need not be the one it was made in.

    A model of other weights than those that filled it is refused when it reads with the cache.

    Args:
        folder: What `save_cache` made; caches of older formats are read too.
        config: Configuration of the model that continues.
        memory_tier: Where its own chunks go; by default that of the configuration.
        memory: The memory that the cache was made on top of; it may have grown since.
        device: The model's device.

    Raises:
        DamagedFolderError: The cache is not what was written.
        FileNotFoundError: The folder holds no cache.
        ValueError: The cache is of a model of other sizes, or was made on top of another memory.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in (DESCRIPTION, FORMER)):
        raise FileNotFoundError(f"{folder} holds no saved cache (it has no {DESCRIPTION}).")
    check_folder(folder)
    cache = DRTCache(config, memory_tier, memory=memory)
    if not (folder / DESCRIPTION).is_file():
        tensors = read_former_cache(folder, config)
    else:
        description = read_description(folder)
        if description.stream is None:
            raise ValueError(
                f"{folder} is a memory, not a saved cache: open_memory opens it, and "
                "DRTCache(config, memory=memory) uses it."
            )
        description.check_sizes(folder, config)
        tensors = _read_stream(folder, description)
        _move_shared(tensors, folder, description.stream["shared"], memory)
        cache.made_by = description.fingerprint
    _restore(cache, tensors, torch.device(device))
    return cache


def _write(cache: DRTCache, made_by: str, shared: SavedMemory | None, folder: Path) -> None:
    parts, index = _write_parts(cache, folder)
    others = {
        f"{name}.{key}": x.cpu().contiguous().clone()
        for name, state in cache.states().items()
        if state is not cache.memory
        for key, x in state.tensors().items()
    }
    data = save(others | {f"memory.{name}": x for name, x in index.items()})
    (folder / TENSORS).write_bytes(data)
    stream: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest(), "shared": None}
    if shared is not None:
        stream["shared"] = {"chunks": shared.num_chunks, "identity": shared.identity()}
    description = Description(
        model=sizes_of(cache.config),
        fingerprint=made_by,
        dtype=str(cache.memory.dtype).removeprefix("torch."),
        parts=tuple(parts),
        stream=stream,
    )
    write_description(folder, description)


def _write_parts(cache: DRTCache, folder: Path) -> tuple[list[PartEntry], dict[str, Tensor]]:
    """Write the chunks that rows refer to; returns the parts, and which row has which chunk."""
    memory = cache.memory
    (folder / "parts").mkdir()
    if not memory.is_ready:  # the model makes no chunks
        return [], {}
    counts = memory.num_chunks
    row, place = (torch.arange(int(counts.max())) < counts[:, None]).nonzero(as_tuple=True)
    held = memory.store_index.cpu()
    numbers, inverse = held[row, place].unique(return_inverse=True)  # [P]
    index = torch.zeros_like(held)
    index[row, place] = inverse
    first = torch.zeros(len(numbers), dtype=torch.long)  # a row that has the chunk, [P]
    first[inverse] = torch.arange(len(row))
    ids = cache.log.ids_of_chunks(torch.zeros_like(counts), counts, cache.config.chunk_size - 1)
    here = memory.landmarks.device
    landmarks = memory.landmarks[row[first].to(here), place[first].to(here)].cpu()
    chunk_bytes = max(memory.chunk_bytes, 1)
    size = max(PART_BYTES // chunk_bytes, 1)
    entries: list[PartEntry] = []
    for start in range(0, len(numbers), size):
        piece = slice(start, start + size)
        keys, values, lengths = (x.cpu() for x in memory.store.gather(numbers[piece]))
        inside = torch.arange(ids.shape[1]) < lengths[:, None]
        known = ids[first[piece]][inside]
        content = PartContent(
            landmarks=landmarks[piece],
            chunks=torch.stack([keys, values], dim=1),
            lengths=lengths.int(),
            token_ids=known if bool((known >= 0).all()) else known[:0],
            lines=torch.zeros_like(lengths, dtype=torch.int32),
            documents=torch.tensor([len(lengths)], dtype=torch.int32),
            names=[{"name": "stream"}],
            continues=start > 0,
            ends=start + size >= len(numbers),
        )
        entries.append(write_part(folder, len(entries), content))
    return entries, {
        "num_chunks": counts.clone(),
        "documents": memory.documents.cpu().contiguous().clone(),
        "store_index": index,
    }


def _read_stream(folder: Path, description: Description) -> dict[str, Tensor]:
    file = folder / TENSORS
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DamagedFolderError(f"{file} cannot be read: {error.strerror}.") from error
    assert description.stream is not None
    if hashlib.sha256(data).hexdigest() != description.stream["sha256"]:
        raise DamagedFolderError(f"{file} has changed since it was written.")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise DamagedFolderError(f"{file} is damaged: {error}.") from error
    if "memory.num_chunks" not in tensors:
        return tensors
    model, dtype = description.model, getattr(torch, description.dtype)
    shape = (2, model["chunk_size"], model["num_key_value_heads"], model["head_dim"])
    slots = model["chunk_size"] - 1
    landmarks, chunks, lengths, ids = [], [], [], []
    for entry in description.parts:
        part = Part(folder, entry)
        landmarks.append(torch.empty(part.num_chunks, part.landmark_size, dtype=dtype))
        part.read_landmarks(landmarks[-1])
        chunks.append(torch.empty(part.num_chunks, *shape, dtype=part.dtype_of("chunks")))
        for n, chunk in enumerate(chunks[-1]):
            part.read_chunk(n, chunk)
        lengths.append(part.lengths.long())
        ids.append(torch.full((part.num_chunks, slots), -1, dtype=torch.int32))
        if part.has_token_ids:
            inside = torch.arange(slots) < part.lengths[:, None]
            ids[-1][inside] = torch.from_numpy(part.token_ids(0, part.num_chunks))
    counts, index = tensors["memory.num_chunks"], tensors["memory.store_index"]
    width = index.shape[1]
    size = landmarks[0].shape[1] if landmarks else model["hidden_size"]
    rows = torch.zeros(len(counts), width, size, dtype=dtype)
    pool = torch.zeros(0, *shape, dtype=dtype)
    if chunks:
        used = torch.arange(width) < counts[:, None]
        rows[used] = torch.cat(landmarks)[index[used]]
        pool = torch.cat(chunks)
    return tensors | {
        "memory.landmarks": rows,
        "memory.keys": pool[:, 0],
        "memory.values": pool[:, 1],
        "memory.lengths": torch.cat([torch.zeros(0, dtype=torch.long), *lengths]),
        "memory.token_ids": torch.cat([torch.zeros(0, slots, dtype=torch.int32), *ids]),
    }


def _move_shared(
    tensors: dict[str, Tensor], folder: Path, made_on: Any, memory: SavedMemory | None
) -> None:
    """Number a stream's own chunks from the end of its memory, which may have grown.

    Chunks that its last landmarks retrieved from documents deleted since get weight 0.
    """
    if made_on is None and memory is None:
        return
    if made_on is None:
        raise ValueError(f"The cache in {folder} was made without a memory: load it without one.")
    if memory is None or memory.identity(made_on["chunks"]) != made_on["identity"]:
        raise ValueError(
            f"The cache in {folder} was made on top of another memory: pass that one, "
            "load_cache(…, memory=open_memory(…))."
        )
    num_shared = made_on["chunks"]
    more = memory.num_chunks - num_shared
    for name, x in list(tensors.items()):
        if name.startswith("serving.") and name.endswith(".indices"):
            is_shared = (x >= 0) & (x < num_shared)
            is_gone = torch.zeros_like(is_shared)
            is_gone[is_shared] = ~memory.may_be_read(x[is_shared])
            x = torch.where(x >= num_shared, x + more, x)
            tensors[name] = x.masked_fill(is_gone, -1)
            weights = name.removesuffix("indices") + "weights"
            tensors[weights] = _without(tensors[weights], is_gone)


def _without(weights: Tensor, is_gone: Tensor) -> Tensor:
    """Return retrieval weights [B, K] without some of the chunks, renormalized."""
    left = weights.masked_fill(is_gone, 0)
    total = left.sum(-1, keepdim=True)
    return torch.where(is_gone.any(-1, keepdim=True) & (total > 0), left / total, left)


def _restore(cache: DRTCache, tensors: dict[str, Tensor], device: torch.device) -> None:
    for name, state in cache.states().items():
        prefix = f"{name}."
        part = {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
        if part:
            state.restore(part, device)
