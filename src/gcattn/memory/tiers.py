"""From the name of a tier to a memory."""

from typing import Literal, get_args

from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.device import DeviceMemory
from gcattn.memory.host import HostMemory

MemoryTier = Literal["device", "host"]


def make_memory(tier: MemoryTier, expected_chunks: int = 0) -> ChunkMemory:
    """Return an empty memory whose keys and values live in the given tier.

    On the device there is room for the expected chunks of each row from the start.

    Raises:
        ValueError: There is no such tier.
    """
    if tier not in get_args(MemoryTier):
        raise ValueError(f"memory_tier must be one of {list(get_args(MemoryTier))}, got {tier!r}.")
    kinds: dict[str, type[ChunkMemory]] = {"device": DeviceMemory, "host": HostMemory}
    return kinds[tier](expected_chunks)
