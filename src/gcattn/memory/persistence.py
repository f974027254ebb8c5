"""Save what a stream left behind and load it again: read a document once, ask it for ever.

A folder holds one safetensors file with every tensor and a manifest with the sizes of the model
that made them. It appears whole or not at all.
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gcattn.chunking import ChunkState
from gcattn.memory.cache import DRTCache, ServingRetrieval
from gcattn.memory.tiers import MemoryTier
from gcattn.nn.chunk_encoder import ChunkTail

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

TENSORS, MANIFEST = "cache.safetensors", "cache.json"
FORMAT_VERSION = 1
# what must agree between the model that read and the model that goes on
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_key_value_heads",
    "head_dim",
    "num_lower_layers",
    "num_upper_layers",
    "num_retrieval_groups",
    "chunk_size",
    "window_size",
    "retrieval_serves",
    "embedding_convolution_size",
    "key_convolution_size",
    "landmark_overlap",
)
# fields that caches made before them lack, with what they stood for
ADDED_SIZES = {
    "embedding_convolution_size": 1,
    "key_convolution_size": 1,
    "landmark_overlap": 0,
}


def save_cache(cache: DRTCache, folder: str | Path) -> None:
    """Write a cache, its chunk memory included, into a new folder.

    Args:
        cache: Something has been read with it.
        folder: Made by this call.

    Raises:
        FileExistsError: The folder is there already.
        ValueError: Nothing has been read with the cache.
    """
    folder = Path(folder)
    if cache.state is None:
        raise ValueError("The cache is empty: run the model with it before saving it.")
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose another name or remove it.")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_file(_tensors(cache, cache.state), unfinished / TENSORS)
    manifest = {
        "format_version": FORMAT_VERSION,
        "num_tokens": cache.num_tokens,
        "model": {name: getattr(cache.config, name) for name in SIZES},
    }
    (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, folder)


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
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        made_by, num_tokens = manifest["model"], int(manifest["num_tokens"])
        tensors = load_file(folder / TENSORS)
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise ValueError(f"The cache in {folder} is damaged: {error}.") from error
    made_by = ADDED_SIZES | made_by
    for name in SIZES:
        if made_by.get(name) != getattr(config, name):
            raise ValueError(
                f"The cache in {folder} is of a model with {name} = {made_by.get(name)}, "
                f"this one has {getattr(config, name)}."
            )
    cache = DRTCache(config, memory_tier)
    _restore(cache, tensors, torch.device(device))
    cache.num_tokens = num_tokens
    return cache


def _tensors(cache: DRTCache, state: ChunkState) -> dict[str, Tensor]:
    parts: dict[str, Tensor] = {f"state.{name}": x for name, x in vars(state).items()}
    for name, window in (("lower", cache.lower_window), ("upper", cache.upper_window)):
        parts |= {f"{name}.{key}": x for key, x in window.tensors().items()}
    parts |= {f"memory.{key}": x for key, x in cache.memory.tensors().items()}
    for name in ("open_chunk", "last_columns"):
        if (x := getattr(cache, name)) is not None:
            parts[name] = x
    if cache.chunk_tail is not None:
        parts |= {f"chunk_tail.{key}": x for key, x in cache.chunk_tail._asdict().items()}
    for group, serving in enumerate(cache.serving):
        if serving is not None:
            parts |= {f"serving.{group}.{key}": x for key, x in serving._asdict().items()}
    return {name: x.cpu().contiguous().clone() for name, x in parts.items()}


def _restore(cache: DRTCache, tensors: dict[str, Tensor], device: torch.device) -> None:
    cache.state = ChunkState(**_part(tensors, "state"))
    for name, window in (("lower", cache.lower_window), ("upper", cache.upper_window)):
        window.restore({key: x.to(device) for key, x in _part(tensors, name).items()})
    for name in ("open_chunk", "last_columns"):
        if name in tensors:
            setattr(cache, name, tensors[name].to(device))
    if chunk_tail := _part(tensors, "chunk_tail"):
        cache.chunk_tail = ChunkTail(**{key: x.to(device) for key, x in chunk_tail.items()})
    if memory := _part(tensors, "memory"):
        cache.memory.restore(memory, device)
    for group in range(len(cache.serving)):
        if serving := _part(tensors, f"serving.{group}"):
            on_device = {key: x.to(device) for key, x in serving.items()}
            cache.serving[group] = ServingRetrieval(**on_device)


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
