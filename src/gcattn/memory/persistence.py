"""Save what a stream left behind and load it again: read a document once, ask it for ever.

A folder holds one safetensors file with every tensor, `cache.json` with the sizes of the model that
made them, and the checksums of both. It appears whole or not at all.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gcattn.memory.cache import DRTCache
from gcattn.memory.sizes import ADDED_SIZES, SIZES
from gcattn.memory.tiers import MemoryTier
from gcattn.memory.token_log import UNKNOWN
from gcattn.storage.manifest import check_folder
from gcattn.storage.whole import new_folder

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

TENSORS, MANIFEST = "cache.safetensors", "cache.json"
FORMAT_VERSION = 2
# tensors that format 1 saved under other names
RENAMED = {"open_chunk": "open_chunk.states", "last_columns": "last_columns.states"}


def save_cache(cache: DRTCache, folder: str | Path) -> None:
    """Write a cache, its chunk memory included, into a new folder.

    Args:
        cache: Something has been read with it.
        folder: Made by this call.

    Raises:
        DiskFullError: The disk is full.
        FileExistsError: The folder is there already.
        ValueError: Nothing has been read with the cache.
    """
    folder = Path(folder)
    if not cache.is_initialized:
        raise ValueError("The cache is empty: run the model with it before saving it.")
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose another name or remove it.")
    manifest = {
        "format_version": FORMAT_VERSION,
        "num_tokens": cache.log.num_tokens,
        "model": {name: getattr(cache.config, name) for name in SIZES},
    }
    text = json.dumps(manifest, indent=2) + "\n"
    with new_folder(folder) as unfinished:
        save_file(_tensors(cache), unfinished / TENSORS)
        (unfinished / MANIFEST).write_text(text, encoding="utf-8")


def load_cache(
    folder: str | Path,
    config: "DRTConfig",
    *,
    memory_tier: MemoryTier | None = None,
    device: str | torch.device = "cpu",
) -> DRTCache:
    """Load a cache that `save_cache` wrote; the tier need not be the one it was made in.

    Args:
        folder: What `save_cache` made.
        config: Configuration of the model that goes on.
        memory_tier: "device" or "host"; the configuration's without it.
        device: Where the model computes.

    Raises:
        FileNotFoundError: The folder holds no cache.
        ValueError: The cache is damaged, or of a model of other sizes.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"{folder} holds no saved cache (it has no {MANIFEST}).")
    check_folder(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        made_by, num_tokens = manifest["model"], int(manifest["num_tokens"])
        version = int(manifest["format_version"])
        tensors = load_file(folder / TENSORS)
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise ValueError(f"The cache in {folder} is damaged: {error}.") from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"The cache in {folder} has format {version}, this gcattn reads up to "
            f"{FORMAT_VERSION}: update gcattn, or read the document again."
        )
    made_by = ADDED_SIZES | made_by
    if version == 1:  # it counted the landmark as an id
        made_by["vocab_size"] -= 1
    for name in SIZES:
        if made_by.get(name) != getattr(config, name):
            raise ValueError(
                f"The cache in {folder} is of a model with {name} = {made_by.get(name)}, "
                f"this one has {getattr(config, name)}."
            )
    cache = DRTCache(config, memory_tier)
    renamed = {RENAMED.get(name, name): x for name, x in tensors.items()}
    _restore(cache, renamed, torch.device(device))
    if not cache.log.num_tokens:  # format 1 kept none: nothing is known of the tokens but how many
        nothing = torch.full((len(cache.memory.num_chunks), num_tokens), UNKNOWN, dtype=torch.int32)
        cache.log.extend(nothing.to(device), nothing)
    return cache


def _tensors(cache: DRTCache) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": x.cpu().contiguous().clone()
        for name, state in cache.states().items()
        for key, x in state.tensors().items()
    }


def _restore(cache: DRTCache, tensors: dict[str, Tensor], device: torch.device) -> None:
    for name, state in cache.states().items():
        prefix = f"{name}."
        part = {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
        if part:
            state.restore(part, device)
