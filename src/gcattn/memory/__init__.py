"""Where finished chunks live: landmarks, keys and values, in the tier that holds them."""

from gcattn.memory.chunk_memory import ChunkMemory, make_memory
from gcattn.memory.chunk_source import ChunkSource, EncodedChunks, RetrievedChunks
from gcattn.memory.stores import MemoryTier

__all__ = [
    "ChunkMemory",
    "ChunkSource",
    "EncodedChunks",
    "MemoryTier",
    "RetrievedChunks",
    "make_memory",
]
