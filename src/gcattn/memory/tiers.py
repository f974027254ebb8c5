"""From the name of a tier to a memory."""

from typing import Literal, get_args

from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.device import DeviceMemory
from gcattn.memory.host import HostMemory

MemoryTier = Literal["device", "host"]


def make_memory(tier: MemoryTier) -> ChunkMemory:
    """Return an empty memory whose keys and values live in the given tier.

    Raises:
        ValueError: There is no such tier.
    """
    if tier not in get_args(MemoryTier):
        raise ValueError(f"memory_tier must be one of {list(get_args(MemoryTier))}, got {tier!r}.")
    return HostMemory() if tier == "host" else DeviceMemory()
