"""Older caches, formats 1 and 2: one file with every tensor.

They record no weights, so other weights of the same sizes can read them unnoticed.

Shapes: B batch, P tokens read.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gcattn.memory.saved.description import FORMER
from gcattn.memory.sizes import ADDED_SIZES, SIZES
from gcattn.memory.token_log import NOTHING_GENERATED, UNKNOWN
from gcattn.storage.manifest import DamagedFolderError

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

TENSORS, VERSION = "cache.safetensors", 2
# tensors that format 1 saved under other names
RENAMED = {"open_chunk": "open_chunk.states", "last_columns": "last_columns.states"}


def read_former_cache(folder: Path, config: "DRTConfig") -> dict[str, Tensor]:
    """Return the tensors of a cache of format 1 or 2 by today's names.

    Raises:
        DamagedFolderError: It is damaged, or of a later format.
        ValueError: It is of a model of other sizes.
    """
    try:
        described = json.loads((folder / FORMER).read_text(encoding="utf-8"))
        made_by: dict[str, Any] = dict(described["model"])
        num_tokens = int(described["num_tokens"])
        version = int(described["format_version"])
        tensors = {RENAMED.get(k, k): x for k, x in load_file(folder / TENSORS).items()}
    except (ValueError, KeyError, TypeError, OSError, SafetensorError, RecursionError) as error:
        raise DamagedFolderError(f"The cache in {folder} is damaged: {error}.") from error
    if version not in (1, VERSION):
        raise DamagedFolderError(
            f"The cache in {folder} has format {version}, this gcattn reads up to {VERSION}: "
            "update gcattn, or read the document again."
        )
    made_by = {**ADDED_SIZES, **made_by}
    if version == 1:  # it counted the landmark as an id
        made_by["vocab_size"] -= 1
    for name in SIZES:
        if made_by.get(name) != getattr(config, name):
            raise ValueError(
                f"The cache in {folder} is of a model with {name} = {made_by.get(name)}, "
                f"this one has {getattr(config, name)}."
            )
    if "log.ids" not in tensors:  # only the number of tokens is known
        rows = len(tensors["state.open_length"])
        nothing = torch.full((rows, num_tokens), UNKNOWN, dtype=torch.int32)
        tensors |= {
            "log.ids": nothing,
            "log.chunks": nothing.clone(),
            "log.last_generated": torch.full((rows,), NOTHING_GENERATED),
        }
    return tensors
