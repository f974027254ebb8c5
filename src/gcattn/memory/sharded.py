"""One memory on several processes: each scores its own landmarks and sends the chosen chunks.

All processes run the model on the same question, in step. A retrieval gathers K candidates from
each; the K best of all candidates are the K best of the whole memory. Then the owner of each chosen
chunk sends it to the others. Nothing else is sent.

Shapes: N chunks of all processes, Q queries, K chosen chunks, U chunks asked for, S slots per
chunk, G key/value heads, D head dim, E hidden size.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gcattn.memory.shared_chunks import SharedChunks
from gcattn.memory.stores.store import ChunkReader, GatheredChunks
from gcattn.ops.chunk_topk.candidates import merge_candidates
from gcattn.ops.chunk_topk.running_best import BestChunks

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class ShardedChunks:
    """The chunks of all processes, numbered from the first process to the last.

    Every process makes one from its own share and calls the same methods with the same arguments;
    `DRTCache(config, memory=…)` takes it like any other memory. On a GPU the choice is bit for bit
    that of one process. In plain PyTorch it is if each share begins at a multiple of `SCORE_BLOCK`
    chunks; otherwise scores may differ in the last digit.

    Args:
        own: The chunks of this process, such as what `open_memory` returns.
        group: The processes; by default all of them.
    """

    def __init__(self, own: SharedChunks, group: Any = None) -> None:
        self._own = own
        self._exchange = _Exchange(own.num_chunks, group)

    @property
    def num_chunks(self) -> int:
        """Chunks N of all processes, those that may not be chosen included."""
        return self._exchange.bounds[-1]

    @property
    def landmarks(self) -> "ShardedLandmarks":
        """The landmarks, by which chunks are chosen."""
        return ShardedLandmarks(self._own, self._exchange)

    @property
    def reader(self) -> ChunkReader:
        """Their keys and values."""
        return ShardedReader(self._own, self._exchange)

    def check_sizes(self, config: "DRTConfig") -> None:
        """Refuse a model of other sizes than those of this process's chunks.

        Raises:
            ValueError: A size differs.
        """
        self._own.check_sizes(config)

    def bind(self, model: nn.Module) -> None:
        """Register the `DRTModel` that reads.

        Raises:
            ValueError: It did not make the chunks of this process.
        """
        self._own.bind(model)


class ShardedLandmarks:
    """The landmarks of all processes."""

    def __init__(self, own: SharedChunks, exchange: "_Exchange") -> None:
        self._own, self._exchange = own.landmarks, exchange

    @property
    def may_be_chosen(self) -> Tensor:
        """Which chunks may be chosen, bool [N]."""
        own = self._own.may_be_chosen
        everything = torch.arange(self._exchange.bounds[-1])
        (chosen,) = self._exchange.bring(everything, lambda at: [own[at.to(own.device)]])
        return chosen

    def best(self, queries: Tensor, top_k: int) -> BestChunks:
        """Return the K chunks with the best scores for each query [Q, E], and the scores [Q, K]."""
        found = self._own.best(queries, top_k)
        numbers = torch.where(found.indices >= 0, found.indices + self._exchange.first, -1)
        candidates = [
            BestChunks(*of_rank)
            for of_rank in zip(
                self._exchange.all(numbers), self._exchange.all(found.scores), strict=True
            )
        ]
        best = merge_candidates(candidates, top_k)
        # the K best of all candidates are the K best of all chunks
        scores = torch.cat([own.scores for own in candidates], dim=-1)
        return BestChunks(best, scores.sort(dim=-1, descending=True, stable=True).values[:, :top_k])

    def at(self, numbers: Tensor) -> Tensor:
        """Return the landmarks of chunks, [*numbers.shape, E], where the queries are."""
        distinct, places = numbers.unique(return_inverse=True)
        (landmarks,) = self._exchange.bring(distinct, lambda own: [self._own.at(own)])
        return landmarks[places] if self._exchange.bounds[-1] else self._own.at(numbers)


class ShardedReader(ChunkReader):
    """The keys and values of all processes."""

    def __init__(self, own: SharedChunks, exchange: "_Exchange") -> None:
        self._own, self._exchange = own.reader, exchange

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return self._exchange.bounds[-1]

    def gather(self, numbers: Tensor) -> GatheredChunks:
        """Copy chunks to the model's device, by distinct and ascending numbers [U]."""
        read = self._exchange.bring(numbers, lambda own: list(self._own.gather(own.cpu())))
        return GatheredChunks(*read)

    def prefetch(self, numbers: Tensor) -> None:
        """Announce that these chunks [U] will be read."""
        first, end = self._exchange.first, self._exchange.end
        self._own.prefetch(numbers[(numbers >= first) & (numbers < end)] - first)

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place, in this process."""
        return self._own.num_bytes()


class _Exchange:
    """Communication between the processes.

    Attributes:
        bounds: Number of the first chunk of each process, and N.
    """

    def __init__(self, num_own: int, group: Any) -> None:
        self._group = group
        self._rank, count = dist.get_rank(group), dist.get_world_size(group)
        counts: list[Any] = [None] * count
        dist.all_gather_object(counts, num_own, group=group)
        self.bounds = [sum(counts[:rank]) for rank in range(count + 1)]

    @property
    def first(self) -> int:
        """Number of this process's first chunk."""
        return self.bounds[self._rank]

    @property
    def end(self) -> int:
        """Number after its last."""
        return self.bounds[self._rank + 1]

    def all(self, x: Tensor) -> list[Tensor]:
        """Gather what every process passes, in the order of the processes."""
        gathered = [torch.empty_like(x) for _ in self.bounds[1:]]
        dist.all_gather(gathered, x.contiguous(), group=self._group)
        return gathered

    def bring(self, numbers: Tensor, read: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        """Gather rows of tensors from the processes that hold them.

        Args:
            numbers: Of the chunks, [U], distinct and ascending.
            read: Returns rows of this process's tensors, by local numbers.
        """
        like = read(numbers[:0])
        parts: list[list[Tensor]] = [[x] for x in like]
        places = torch.searchsorted(numbers.cpu(), torch.tensor(self.bounds)).tolist()
        for owner, (begin, end) in enumerate(pairwise(places)):
            if begin == end:
                continue
            if owner == self._rank:
                rows = read(numbers[begin:end] - self.first)
            else:
                rows = [x.new_empty(end - begin, *x.shape[1:]) for x in like]
            for part, x in zip(parts, rows, strict=True):
                # as bytes: not every backend knows every dtype
                data = x.contiguous().view(torch.uint8)
                source = dist.get_global_rank(self._group, owner) if self._group else owner
                dist.broadcast(data, source, group=self._group)
                part.append(data.view(x.dtype))
        return [torch.cat(part) for part in parts]
