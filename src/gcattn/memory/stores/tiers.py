"""From the name of a tier to a store."""

from typing import Literal, get_args

import torch

from gcattn.memory.stores.device import DeviceStore
from gcattn.memory.stores.disk import DiskStore
from gcattn.memory.stores.host import HostStore, Int8HostStore
from gcattn.memory.stores.recompute import RecomputeStore
from gcattn.memory.stores.store import ChunkStore

MemoryTier = Literal["device", "host", "host-int8", "disk", "recompute"]


def make_store(tier: MemoryTier, device: torch.device | None = None) -> ChunkStore:
    """Return an empty store of the given tier.

    Args:
        tier: Its name.
        device: Where the model is; by default the device of the first chunks.

    Raises:
        ValueError: There is no such tier.
    """
    check_tier(tier)
    if tier == "device":
        return DeviceStore()
    if tier == "host":
        return HostStore(device)
    if tier == "host-int8":
        return Int8HostStore(device)
    return DiskStore() if tier == "disk" else RecomputeStore()


def check_tier(tier: str) -> None:
    """Refuse a name that is no tier.

    Raises:
        ValueError: There is no such tier.
    """
    if tier not in get_args(MemoryTier):
        raise ValueError(f"memory_tier must be one of {list(get_args(MemoryTier))}, got {tier!r}.")
