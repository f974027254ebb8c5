"""A DRT's cache for transformers: chunk memory, windows, the open chunk and what serves it now.

Shapes: B batch, S slots per chunk, K retrieved chunks, E hidden size.
"""

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache

from gcattn.chunking import ChunkState
from gcattn.memory.chunk_memory import ChunkMemory
from gcattn.memory.tiers import MemoryTier, make_memory
from gcattn.memory.window import WindowCache
from gcattn.nn.chunk_encoder import ChunkTail

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class ServingRetrieval(NamedTuple):
    """What the last landmark of each row retrieved in one group; it serves the open chunk."""

    indices: Tensor  # [B, K]
    weights: Tensor  # [B, K]
    documents: Tensor  # [B], document of the chunk that retrieved


class DRTCache(Cache):
    """Everything that a stream of tokens leaves behind; grows by a chunk every S - 1 tokens.

    Args:
        config: Configuration of the model that the cache is for.
        memory_tier: "device" or "host"; the configuration's without it.
        expected_tokens: Tokens per row, where they are known: the device then takes room for them
            at once. Memory that grows as it fills is copied now and then, and needs up to two and a
            half times its bytes while it is. There may be more tokens, or fewer.

    Raises:
        ValueError: `expected_tokens` is negative, or there is no such tier.
    """

    def __init__(
        self,
        config: "DRTConfig",
        memory_tier: MemoryTier | None = None,
        *,
        expected_tokens: int = 0,
    ) -> None:
        super().__init__(layers=[])
        if expected_tokens < 0:
            raise ValueError(f"expected_tokens must be at least 0, got {expected_tokens}.")
        self.config = config
        self.expected_tokens = expected_tokens
        self._memory_tier: MemoryTier = config.memory_tier if memory_tier is None else memory_tier
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        config = self.config
        expected_chunks = -(-self.expected_tokens // (config.chunk_size - 1))
        self.memory: ChunkMemory = make_memory(self._memory_tier, expected_chunks)
        self.lower_window = WindowCache(config.num_lower_layers, config.window_size)
        self.upper_window = WindowCache(config.num_upper_layers, config.window_size)
        self.state: ChunkState | None = None
        self.open_chunk: Tensor | None = None  # [B, S, E], the lower decoder's states
        # [B, taps - 1, E], embeddings that the convolution over columns goes on from
        self.last_columns: Tensor | None = None
        # end of the last finished chunk, where the next one is made of it too
        self.chunk_tail: ChunkTail | None = None
        self.serving: list[ServingRetrieval | None] = [None] * config.num_retrieval_groups
        self.num_tokens = 0

    def __len__(self) -> int:
        """Return the decoder layers; a cache is never falsy for being empty."""
        return self.config.num_hidden_layers

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the tokens seen per row, padding included and landmarks not."""
        return self.num_tokens

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return -1: a stream may be of any length."""
        return -1

    def num_bytes(self) -> dict[str, int]:
        """Return bytes held by place, {"device": …, "host": …}."""
        held = self.memory.num_bytes()
        held["device"] += self.lower_window.num_bytes() + self.upper_window.num_bytes()
        for x in (self.open_chunk, self.last_columns, *(self.chunk_tail or ())):
            held["device"] += 0 if x is None else x.numel() * x.element_size()
        return held

    def keep_open_chunk(self, grid: Tensor, num_finished: Tensor) -> None:
        """Keep the chunk that is open after a call, zero where none is.

        Args:
            grid: The chunks that the call touched, [B, C, S, E].
            num_finished: How many of them it finished, [B].
        """
        rows = torch.arange(grid.shape[0], device=grid.device)
        padded = F.pad(grid, (0, 0, 0, 0, 0, 1))  # a row may have finished the last one it touched
        self.open_chunk = padded[rows, num_finished].detach()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx` [B'], in this order; rows that repeat share their chunks."""
        if self.state is None or self.open_chunk is None:
            return
        self.state = self.state.select(beam_idx)
        self.open_chunk = self.open_chunk[beam_idx.to(self.open_chunk.device)]
        if self.last_columns is not None:
            self.last_columns = self.last_columns[beam_idx.to(self.last_columns.device)]
        if self.chunk_tail is not None:
            self.chunk_tail = _rows(self.chunk_tail, beam_idx)
        for window in (self.lower_window, self.upper_window):
            window.select_rows(beam_idx)
        self.serving = [None if s is None else _rows(s, beam_idx) for s in self.serving]
        self.memory.select_rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times; the copies share their chunks."""
        if self.state is not None:
            self.reorder_cache(torch.arange(len(self.state.open_length)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the rows `indices`."""
        self.reorder_cache(indices)

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse: finished chunks are encoded for good.

        Raises:
            ValueError: Always, unless nothing is to be removed.
        """
        if tokens_to_remove != 0:
            raise ValueError(
                "A DRT cache can't give tokens back, since finished chunks are encoded for good; "
                "start from a copy made before (copy.deepcopy(cache)) instead."
            )

    @property
    def is_compileable(self) -> bool:
        """False: shapes change as chunks close."""
        return False

    @property
    def is_linear(self) -> list[bool]:
        """One False: `generate` has to cut off a prompt what the cache has seen of it."""
        # asked from transformers 5.24 on, with `all`, which the empty list of `layers` would pass
        return [False]

    @property
    def is_croppable(self) -> bool:
        """False: see `crop`."""
        return False

    @property
    def is_initialized(self) -> bool:
        """Whether a call has been made with this cache."""
        return self.state is not None


_Parts = TypeVar("_Parts", ChunkTail, ServingRetrieval)


def _rows(parts: _Parts, rows: Tensor) -> _Parts:
    return type(parts)(*(x[rows.to(x.device)] for x in parts))
