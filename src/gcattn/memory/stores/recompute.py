"""The tier "recompute": chunks are recomputed from their token ids when they are retrieved.

A column of the lower decoder depends on the last num_lower_layers · (W - 1) columns, and through
the convolution over embeddings on a few more: a chunk is recomputed by reading it after that much
of its document. Rotary embeddings depend only on differences of positions, so reading may start at
position 0.

Shapes: n new chunks, U chunks asked for, B rows read at once, T tokens, S slots per chunk,
G key/value heads, D head dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

import torch
from torch import Tensor, nn

from gcattn.memory.stores.blocks import HostBlocks
from gcattn.memory.stores.recent import RecentChunks
from gcattn.memory.stores.store import (
    ChunkReader,
    ChunkStore,
    GatheredChunks,
    NewChunks,
    split_pool,
)

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

# bytes of recomputed chunks that stay on the model's device
BUDGET_BYTES = 2**28
# tokens that are read at once, padding included
BATCH_TOKENS = 2**16


class TokenSource(Protocol):
    """The token ids of chunks."""

    def __len__(self) -> int:
        """Return the number of chunks."""

    def num_tokens(self, number: int) -> int:
        """Return the number of tokens of a chunk."""

    def texts(self, numbers: Sequence[int]) -> list[Tensor]:
        """Return the ids of each chunk, int64 [t] on the CPU; faster where numbers are in a row."""

    def previous(self, number: int) -> int:
        """Return the number of the chunk before it in the document; -1 for the first."""


class RecomputeReader(ChunkReader):
    """Chunks that a model recomputes.

    Args:
        tokens: Their token ids.
        device: Where the model is.
        budget_bytes: Bytes of recomputed chunks that stay on the model's device.
    """

    is_off_device = False

    def __init__(
        self, tokens: TokenSource, device: torch.device, budget_bytes: int = BUDGET_BYTES
    ) -> None:
        self._tokens = tokens
        self.device = device
        self.recent = RecentChunks(budget_bytes)
        self._model: ref[nn.Module] | None = None

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return len(self._tokens)

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place, without token ids."""
        return {"device": self.recent.num_bytes}

    def bind(self, model: nn.Module) -> None:
        """Register the `DRTModel` that makes the chunks."""
        self._model = ref(model)

    def gather(self, numbers: Tensor) -> GatheredChunks:
        """Return chunks [U]; recompute those that are not cached."""
        wanted = numbers.tolist()
        chunks = {n: known for n in wanted if (known := self.recent.get(n)) is not None}
        missing = [n for n in wanted if n not in chunks]
        for row in self._batches(missing):
            for number, chunk in self._read(row):
                chunks[number] = chunk
                self.recent.put(number, chunk)
        lengths = torch.tensor([self._tokens.num_tokens(n) for n in wanted], dtype=torch.long)
        return split_pool(torch.stack([chunks[n] for n in wanted]), lengths.to(self.device))

    def _batches(self, numbers: Sequence[int]) -> list[list["_Run"]]:
        """Arrange chunks into runs, and runs into batches of a bounded size."""
        runs: list[_Run] = []
        for number in numbers:
            chain = self._chain(number)
            if runs and runs[-1].chunks[-1] in chain:
                # reading the chunk before passes through it: one run makes both
                behind = chain.index(runs[-1].chunks[-1]) + 1
                runs[-1].chunks += chain[behind:]
                runs[-1].wanted.append(number)
            else:
                runs.append(_Run(chain, [number]))
        batches: list[list[_Run]] = []
        size, longest = BATCH_TOKENS, 0
        slots = self._config.chunk_size
        for run in sorted(runs, key=lambda run: len(run.chunks)):
            longest = len(run.chunks) * slots
            if not batches or (len(batches[-1]) + 1) * longest > size:
                batches.append([])
            batches[-1].append(run)
        return batches

    def _chain(self, number: int) -> list[int]:
        """Return the chunks that must be read to recompute the last of them, in order."""
        config = self._config
        needed = config.num_lower_layers * (config.window_size - 1)
        needed += config.embedding_convolution_size - 1
        chain, columns = [number], 0
        # keys and landmarks may also depend on the end of the chunk before, in its encoded form
        if config.key_convolution_size > 1 or config.landmark_overlap:
            columns -= config.chunk_size
        while columns < needed:
            previous = self._tokens.previous(chain[-1])
            if previous < 0:
                break
            chain.append(previous)
            columns += self._tokens.num_tokens(previous) + 1
        return chain[::-1]

    def _read(self, runs: list["_Run"]) -> list[tuple[int, Tensor]]:
        """Read runs as one batch; return the wanted chunks, each [2, S, G, D]."""
        texts = [self._tokens.texts(run.chunks) for run in runs]
        lengths = [[len(ids) for ids in text] for text in texts]
        width = max(sum(row) for row in lengths)
        shape = (len(runs), width)
        ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        breaks = torch.zeros(shape, dtype=torch.bool)
        for b, (text, row) in enumerate(zip(texts, lengths, strict=True)):
            whole = torch.cat(text)
            ids[b, : len(whole)], mask[b, : len(whole)] = whole, 1
            breaks[b, torch.tensor(row).cumsum(0) - 1] = True
        encoded = self._bound.encode_chunks(
            ids.to(self.device), attention_mask=mask.to(self.device), chunk_breaks=breaks
        )
        return [
            (number, torch.stack([encoded.keys[b, at], encoded.values[b, at]]))
            for b, run in enumerate(runs)
            for number in run.wanted
            for at in [run.chunks.index(number)]
        ]

    @property
    def _bound(self) -> Any:
        model = None if self._model is None else self._model()
        if model is None:
            raise ValueError(
                'memory_tier="recompute" needs the model that made the chunks: run it with this '
                "cache, and keep it for as long as the cache is used."
            )
        return model

    @property
    def _config(self) -> "DRTConfig":
        config: DRTConfig = self._bound.config
        return config


@dataclass
class _Run:
    """Consecutive chunks of a document, and which of them are wanted."""

    chunks: list[int]
    wanted: list[int]


class RecomputeStore(ChunkStore):
    """Chunks of a stream: their token ids are kept, and the last few chunks themselves."""

    needs_token_ids = True
    is_off_device = False

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._tokens = TokensOfChunks()
        self._reader = RecomputeReader(self._tokens, torch.device("cpu"), budget_bytes)

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return len(self._tokens)

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place."""
        return self._reader.num_bytes() | {"host": self._tokens.num_bytes}

    def bind(self, model: nn.Module) -> None:
        """Register the `DRTModel` that makes the chunks."""
        self._reader.bind(model)

    def append(self, chunks: NewChunks) -> None:
        """Append the token ids of chunks."""
        ids, previous, lengths = chunks.token_ids, chunks.previous, chunks.lengths.cpu()
        assert ids is not None and previous is not None
        inside = torch.arange(ids.shape[1]) < lengths[:, None]
        if bool((ids[inside] < 0).any()):
            raise ValueError(
                'memory_tier="recompute" makes chunks again from token ids, but some came as '
                'embeddings (inputs_embeds): use memory_tier="host" for them.'
            )
        self._reader.device = chunks.keys.device
        first = self.num_chunks
        self._tokens.append(ids, lengths, previous)
        # the landmarks of this call will soon read what was just stored
        for n, (keys, values) in enumerate(zip(chunks.keys, chunks.values, strict=True), first):
            self._reader.recent.put(n, torch.stack([keys, values]))

    def truncate(self, num_chunks: int) -> None:
        """Drop all but the first `num_chunks`."""
        self._tokens.truncate(num_chunks)
        self._reader.recent.truncate(num_chunks)

    def gather(self, numbers: Tensor) -> GatheredChunks:
        """Return chunks [U]; recompute those that are not cached."""
        return self._reader.gather(numbers)


class TokensOfChunks:
    """Token ids and predecessors of the chunks of a stream, in host memory."""

    def __init__(self) -> None:
        self._ids = HostBlocks()  # each int32 [S - 1]
        self._lengths: list[int] = []
        self._previous: list[int] = []

    def __len__(self) -> int:
        return len(self._previous)

    @property
    def num_bytes(self) -> int:
        """Bytes in use."""
        return self._ids.num_bytes + 16 * len(self._previous)

    def append(self, token_ids: Tensor, lengths: Tensor, previous: Tensor) -> None:
        """Add chunks with ids [n, S - 1], `lengths` of which are used."""
        self._ids.append(token_ids.int())
        self._lengths += lengths.tolist()
        self._previous += previous.tolist()

    def truncate(self, num_chunks: int) -> None:
        """Drop all but the first `num_chunks`."""
        self._ids.truncate(num_chunks)
        del self._lengths[num_chunks:]
        del self._previous[num_chunks:]

    def num_tokens(self, number: int) -> int:
        """Return the number of tokens of a chunk."""
        return self._lengths[number]

    def texts(self, numbers: Sequence[int]) -> list[Tensor]:
        """Return the ids of each chunk, int64 [t]."""
        return [self._ids[number][: self._lengths[number]].long() for number in numbers]

    def previous(self, number: int) -> int:
        """Return the number of the chunk before it in the document; -1 for the first."""
        return self._previous[number]
