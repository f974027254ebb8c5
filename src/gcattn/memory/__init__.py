"""Where finished chunks live: landmarks, keys and values, on the device or in host memory."""

from gcattn.memory.chunk_memory import ChunkMemory, ChunkSource, EncodedChunks, RetrievedChunks
from gcattn.memory.device import DeviceMemory
from gcattn.memory.host import HostMemory
from gcattn.memory.tiers import MemoryTier, make_memory

__all__ = [
    "ChunkMemory",
    "ChunkSource",
    "DeviceMemory",
    "EncodedChunks",
    "HostMemory",
    "MemoryTier",
    "RetrievedChunks",
    "make_memory",
]
