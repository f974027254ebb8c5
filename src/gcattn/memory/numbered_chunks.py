"""Shared and stored chunks under one numbering: the shared ones come first.

Shapes: U chunks asked for, S slots per chunk, G key/value heads, D head dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gcattn.memory.shared_chunks import SharedChunks
from gcattn.memory.stores import ChunkStore, GatheredChunks


@dataclass(frozen=True)
class NumberedChunks:
    """Chunks that many streams share, if any, and those of one stream's store."""

    shared: SharedChunks | None
    store: ChunkStore

    @property
    def num_shared(self) -> int:
        """Number of shared chunks."""
        return 0 if self.shared is None else self.shared.num_chunks

    @property
    def are_off_device(self) -> bool:
        """Whether all chunks come from the host."""
        readers = [self.store] if self.shared is None else [self.store, self.shared.reader]
        return all(reader.is_off_device for reader in readers)

    def gather(self, numbers: Tensor, like: Tensor) -> GatheredChunks:
        """Copy chunks to the model's device.

        Args:
            numbers: Of the chunks, [U], distinct and ascending.
            like: An empty tensor in the model's dtype, [0, S, G, D].
        """
        is_shared = numbers < self.num_shared
        parts = []
        if self.shared is not None and bool(is_shared.any()):
            keys, values, lengths = self.shared.reader.gather(numbers[is_shared])
            # a memory in bfloat16 serves a model in float32, and the other way round
            parts.append(GatheredChunks(keys.to(like.dtype), values.to(like.dtype), lengths))
        if not bool(is_shared.all()):
            parts.append(self.store.gather(numbers[~is_shared] - self.num_shared))
        if len(parts) == 1:
            return parts[0]
        if parts:
            return GatheredChunks(*(torch.cat(pair) for pair in zip(*parts, strict=True)))
        return no_chunks(like)

    def prefetch(self, numbers: Tensor) -> None:
        """Announce that these chunks [U] will be read."""
        is_shared = numbers < self.num_shared
        if self.shared is not None:
            self.shared.reader.prefetch(numbers[is_shared])
        self.store.prefetch(numbers[~is_shared] - self.num_shared)


def no_chunks(like: Tensor) -> GatheredChunks:
    """Return no chunks, in the form of `like` [0, S, G, D]."""
    return GatheredChunks(like, like, torch.zeros(0, dtype=torch.long, device=like.device))
