"""The cache of a DRT, for transformers: a stream that persists between calls.

Shapes: B batch.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING
from weakref import ref

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from gcattn.memory.carried import CarriedState, Snapshot
from gcattn.memory.chunk_memory import ChunkMemory, make_memory
from gcattn.memory.chunk_source import ChunkSource, EncodedChunks
from gcattn.memory.fingerprint import check_fingerprint, fingerprint
from gcattn.memory.fixed_stream import FixedStream, fixed_shapes
from gcattn.memory.shared_chunks import SharedChunks
from gcattn.memory.stores import MemoryTier
from gcattn.memory.stream import Stream

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class DRTCache(Stream, Cache):
    """The state of a stream of tokens; grows by a chunk every S - 1 tokens.

    Args:
        config: Configuration of the model that the cache is for.
        memory_tier: Where finished chunks are kept, "device", "host", "host-int8", "disk" or
            "recompute"; by default that of the configuration.
        memory: A memory from `open_memory`, whose chunks precede every row's own. Any number of
            caches may use the same one; none writes to it.
        expected_tokens: Tokens per row, if known: the device then allocates memory for them at
            once. Otherwise it grows in steps, each of which copies it and for a moment takes up to
            2.5 times its size. The number need not be exact.

    Raises:
        ValueError: `expected_tokens` is negative, there is no such tier, or the memory is of a
            model of other sizes.
    """

    remembers = True

    def __init__(
        self,
        config: "DRTConfig",
        memory_tier: MemoryTier | None = None,
        *,
        memory: SharedChunks | None = None,
        expected_tokens: int = 0,
    ) -> None:
        Cache.__init__(self, layers=[])
        if expected_tokens < 0:
            raise ValueError(f"expected_tokens must be at least 0, got {expected_tokens}.")
        if memory is not None:
            memory.check_sizes(config)
        self.config = config
        self.expected_tokens = expected_tokens
        self._memory_tier: MemoryTier = config.memory_tier if memory_tier is None else memory_tier
        self._shared = memory
        self._model: ref[nn.Module] | None = None  # the model that has read with this cache
        self.reset()

    def reset(self) -> None:
        """Forget everything that was read; a given memory stays."""
        Stream.__init__(self, self.config)
        expected_chunks = -(-self.expected_tokens // (self.config.chunk_size - 1))
        self.memory: ChunkMemory = make_memory(self._memory_tier, expected_chunks, self._shared)
        for state in self.last_retrievals:
            state.tells_host = not self.memory.reads_in_place
        # fingerprint of the weights that filled it, if it was loaded
        self.made_by: str | None = None
        self._fixed: FixedStream | None = None
        self._is_fixed = False  # the fixed stream is ahead of the carried states
        self.num_single = 0  # consecutive calls of one token between which no row changed place

    def states(self) -> dict[str, CarriedState]:
        """Return every carried state, by the name that it is saved under."""
        self.settle()
        return super().states() | {"memory": self.memory}

    def fixed(self) -> FixedStream:
        """Return the state in fixed shapes; it is written back before anything else is read."""
        if not self._is_fixed:
            shapes = fixed_shapes(self.config, self, self.memory)
            if self._fixed is None or self._fixed.shapes != shapes:
                with torch.inference_mode(False):  # so that later calls can write in any mode
                    self._fixed = FixedStream(self.config, self, self.memory)
            self._fixed.fill(self)
            self._is_fixed = True
        assert self._fixed is not None
        return self._fixed

    def settle(self) -> None:
        """Write the state in fixed shapes back."""
        if self._is_fixed and self._fixed is not None:
            self._fixed.settle(self)
            self._is_fixed = False

    def __getstate__(self) -> dict[str, object]:
        """Leave out the state in fixed shapes and the model: a copy makes its own."""
        self.settle()
        return vars(self) | {"_fixed": None, "_model": None}

    @property
    def chunks(self) -> ChunkSource | None:
        """The chunks that earlier calls finished; None where there was no earlier call."""
        return self.memory if self.memory.is_ready else None

    def append(self, chunks: EncodedChunks, counts: Tensor) -> ChunkSource:
        """Add the first `counts` [B] chunks of each row; return all that can be retrieved."""
        return self.memory.append_logged(chunks, counts, self.log)

    def bind(self, model: nn.Module) -> None:
        """Register the `DRTModel` that reads; the model does so itself in every call.

        Raises:
            ValueError: The cache was filled by other weights.
        """
        former = self.model
        if former is model:
            return
        if self.is_initialized:
            made_by = self.made_by if former is None else fingerprint(former)
            if made_by is not None:
                check_fingerprint(made_by, model, "The cache")
        self.memory.bind(model)
        self._model = ref(model)

    @property
    def model(self) -> nn.Module | None:
        """The model that last read with this cache; None if it no longer exists."""
        return None if self._model is None else self._model()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Make the enclosed calls atomic: they all succeed, or the cache is as it was, bit for bit.

        Raises:
            ValueError: Another thread is in a call on this cache.
        """
        with self.claimed():
            before = self.snapshot()
            try:
                yield
            except BaseException:  # an interrupt as well
                self.roll_back(before)
                raise
            self._prefetch()

    def _prefetch(self) -> None:
        """Fetch what the last landmarks retrieved, in the background."""
        for state in self.last_retrievals:
            retrieved = state.take_retrieved()
            if retrieved is not None:
                self.memory.prefetch(retrieved.wait())

    def claimed(self) -> AbstractContextManager[None]:
        """Lock the cache against other threads.

        Raises:
            ValueError: Another thread is in a call on this cache.
        """
        return _claimed(self)

    def snapshot(self) -> dict[str, Snapshot]:
        """Return what `roll_back` needs, without copying a tensor."""
        return {name: state.snapshot() for name, state in self.states().items()}

    def roll_back(self, before: dict[str, Snapshot]) -> None:
        """Return to where `snapshot` was taken; a snapshot can be used once."""
        for name, state in self.states().items():
            state.roll_back(before[name])

    def __len__(self) -> int:
        """Return the decoder layers; a cache is never falsy for being empty."""
        return self.config.num_hidden_layers

    @property
    def num_rows(self) -> int | None:
        """Rows of the batch; None before the first call."""
        state = self.position.state
        return None if state is None else len(state.open_length)

    @property
    def num_tokens(self) -> int:
        """Tokens seen per row, padding included and landmarks not."""
        return self.log.num_tokens

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the tokens seen per row, padding included and landmarks not."""
        return self.num_tokens

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return -1: a stream may be of any length."""
        return -1

    def num_bytes(self) -> dict[str, int]:
        """Return bytes by place, {"device": …, "host": …, "disk": …}, without shared chunks."""
        held = [state.num_bytes() for state in self.states().values()]
        places = ("device", "host", "disk")
        return {place: sum(bytes_.get(place, 0) for bytes_ in held) for place in places}

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx` [B'], in this order; rows that repeat share their chunks."""
        self.num_single = 0
        for state in self.states().values():
            state.select_rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times; the copies share their chunks."""
        if self.num_rows is not None:
            self.reorder_cache(torch.arange(self.num_rows).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the rows `indices`."""
        self.reorder_cache(indices)

    def chunk_span(self, row: int, chunk: int) -> tuple[int, int]:
        """Return where a chunk's tokens are among all that the row has read, padding included.

        Args:
            row: Row of the batch.
            chunk: Number of the chunk in its row, as in `output.retrieval[r].indices`. Chunks of a
                given memory come first; use `memory.passage(chunk)` for them.

        Returns:
            The first token and the one after the last: `ids[row, first:end]` is its text.

        Raises:
            IndexError: The row has no such chunk of its own.
        """
        return self.log.span(row, chunk - self.memory.num_shared)

    def chunk_token_ids(self, row: int, chunk: int) -> Tensor:
        """Return the token ids of a chunk, [n]; -1 where tokens came as embeddings.

        Args:
            row: Row of the batch.
            chunk: Number of the chunk in its row, as in `output.retrieval[r].indices`.

        Raises:
            IndexError: The row has no such chunk of its own.
        """
        return self.log.token_ids(row, chunk - self.memory.num_shared)

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse: finished chunks can't be split again.

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
        """One False: `generate` has to trim the cached prefix from the prompt."""
        # transformers 5.24 and later call `all` on it, which an empty list of `layers` would pass
        return [False]

    @property
    def is_croppable(self) -> bool:
        """False: see `crop`."""
        return False

    @property
    def is_initialized(self) -> bool:
        """Whether a call has been made with this cache."""
        return self.position.state is not None


# which thread is in a call on a cache, by the id of the cache
_THREADS: dict[int, int] = {}
_LOCK = threading.Lock()


@contextmanager
def _claimed(cache: DRTCache) -> Iterator[None]:
    """Lock a cache against other threads; the same thread may lock it again."""
    thread = threading.get_ident()
    with _LOCK:
        holder = _THREADS.get(id(cache))
        if holder not in (None, thread):
            raise ValueError(
                "Another thread is in a call on this cache; give each thread one of its own "
                "(copy.deepcopy(cache) shares nothing)."
            )
        _THREADS[id(cache)] = thread
    try:
        yield
    finally:
        if holder is None:
            with _LOCK:
                del _THREADS[id(cache)]
