"""A stream that begins behind a memory: what is read next is a new text that can look back to it.

Shapes: N chunks of the memory, n of a part, S slots per chunk, G key/value heads, D head dim,
E hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gcattn.chunking import ChunkState
from gcattn.memory.chunk_memory import EncodedChunks
from gcattn.memory.saved.part import Part

if TYPE_CHECKING:
    from gcattn.memory.cache import DRTCache
    from gcattn.memory.saved import SavedMemory


def stream_on(memory: SavedMemory, model: Any) -> DRTCache:
    """Return a cache that holds all of a memory's chunks and has read nothing yet.

    The documents of the memory were read each by itself and are found together: to the stream they
    are what it has read before, all of it out of reach of its windows.
    """
    from gcattn.memory.cache import DRTCache

    config = model.config
    cache = DRTCache(config)
    pool = config.chunk_size, config.num_key_value_heads, config.head_dim
    visible = memory.documents.visible_chunks()
    for start, part in _parts(memory):
        n = part.num_chunks
        landmarks = torch.empty(n, config.hidden_size, dtype=part.dtype_of("landmarks"))
        chunks = torch.empty(n, 2, *pool, dtype=part.dtype_of("chunks"))
        part.read_landmarks(landmarks)
        for number in range(n):
            part.read_chunk(number, chunks[number])
        documents = torch.zeros(1, n, dtype=torch.long)
        if visible is not None:
            documents[0, ~visible[start : start + n]] = -1
        landmarks, chunks = (x.to(model.device, model.dtype) for x in (landmarks, chunks))
        lengths = part.lengths.long().to(model.device)
        cache.memory.append(
            EncodedChunks(
                landmarks[None],
                documents.to(model.device),
                chunks[None, :, 0],
                chunks[None, :, 1],
                lengths[None],
            ),
            torch.tensor([n]),
        )
    nothing = torch.zeros(1, dtype=torch.long)
    read = torch.tensor([memory.num_chunks])
    cache.position.move(ChunkState(nothing, read, nothing, nothing, nothing, nothing.bool()))
    return cache


def _parts(memory: SavedMemory) -> list[tuple[int, Part]]:
    parts, start = [], 0
    for entry in memory.description.parts:
        parts.append((start, Part(memory.folder, entry)))
        start += entry.chunks
    return parts
