"""Where keys and values of chunks are kept, a file for each tier."""

from gcattn.memory.stores.device import DeviceStore
from gcattn.memory.stores.disk import DiskReader, DiskStore
from gcattn.memory.stores.host import HostStore, Int8HostStore
from gcattn.memory.stores.recompute import RecomputeReader, RecomputeStore
from gcattn.memory.stores.store import ChunkReader, ChunkStore, GatheredChunks, NewChunks
from gcattn.memory.stores.tiers import MemoryTier, check_tier, make_store

__all__ = [
    "ChunkReader",
    "ChunkStore",
    "DeviceStore",
    "DiskReader",
    "DiskStore",
    "GatheredChunks",
    "HostStore",
    "Int8HostStore",
    "MemoryTier",
    "NewChunks",
    "RecomputeReader",
    "RecomputeStore",
    "check_tier",
    "make_store",
]
