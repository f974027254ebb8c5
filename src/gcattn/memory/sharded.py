"""One memory on several processes: each scores its own landmarks, owners send what is chosen.

All processes run the model on the same question, in step. A retrieval brings K candidates of each
together, of which the K best are those of the whole memory; then the owner of each chosen chunk
sends it to the others. Nothing else travels.

Shapes: N chunks of all processes, n of one, Q queries, K chosen chunks, U chunks asked for, S slots
per chunk, G key/value heads, D head dim, E hidden size.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from gcattn.ops.chunk_topk.candidates import chunk_candidates, merge_candidates
from gcattn.ops.chunk_topk.reference import BestChunks


class Share(NamedTuple):
    """The chunks of one process, on its device."""

    landmarks: Tensor  # [n, E]
    chunks: Tensor  # [n, 2, S, G, D], keys and values
    lengths: Tensor  # [n]
    may_be_chosen: Tensor  # bool [n]


class ShardedChunks:
    """The chunks of all processes, numbered from the first to the last.

    Every process makes one from its own share and calls the same methods with the same arguments.

    Args:
        share: The chunks of this process.
        bounds: Where the chunks of each process begin, and N; `holder_bounds` makes them so that
            what is chosen is, bit for bit, what one process would choose.
        group: The processes; all of them without it.

    Raises:
        ValueError: The bounds do not fit the share or the processes.
    """

    def __init__(self, share: Share, bounds: Sequence[int], group: Any = None) -> None:
        rank, count = dist.get_rank(group), dist.get_world_size(group)
        if len(bounds) != count + 1 or list(bounds) != sorted(bounds) or bounds[0] != 0:
            raise ValueError(
                f"bounds must be {count + 1} ascending numbers from 0 for {count} processes, "
                f"got {list(bounds)}."
            )
        if len(share.landmarks) != bounds[rank + 1] - bounds[rank]:
            raise ValueError(
                f"Process {rank} must hold chunks {bounds[rank]} to {bounds[rank + 1]}, got "
                f"{len(share.landmarks)} of them."
            )
        self._share = share
        self._bounds = list(bounds)
        self._group, self._rank = group, rank

    @property
    def num_chunks(self) -> int:
        """Chunks N of all processes, those that may not be chosen included."""
        return self._bounds[-1]

    def best(self, queries: Tensor, top_k: int) -> Tensor:
        """Return the chunks with the best scores for each query [Q, E], best first, [Q, K].

        -1 where there are fewer than K; of equal scores the earlier chunk comes first.
        """
        own = self._share
        num_visible = torch.full((1, len(queries)), len(own.landmarks), device=queries.device)
        found = chunk_candidates(
            queries[None],
            own.landmarks[None],
            num_visible,
            top_k,
            query_documents=torch.ones_like(num_visible),
            landmark_documents=own.may_be_chosen[None].long(),
        )
        first = self._bounds[self._rank]
        numbers = torch.where(found.indices[0] >= 0, found.indices[0] + first, -1)
        gathered = zip(self._all(numbers), self._all(found.scores[0]), strict=True)
        return merge_candidates([BestChunks(*of_rank) for of_rank in gathered], top_k)

    def landmarks_at(self, numbers: Tensor) -> Tensor:
        """Return the landmarks of chunks, [*numbers.shape, E]."""
        if not self.num_chunks:
            return self._share.landmarks.new_zeros(*numbers.shape, self._share.landmarks.shape[1])
        distinct, places = numbers.clamp_min(0).unique(return_inverse=True)
        (landmarks,) = self._from_owners(distinct, lambda own: [self._share.landmarks[own]])
        return landmarks[places]

    def gather(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys and values [U, S, G, D] and lengths [U] of chunks [U], ascending numbers."""
        own = self._share
        chunks, lengths = self._from_owners(numbers, lambda at: [own.chunks[at], own.lengths[at]])
        return chunks[:, 0], chunks[:, 1], lengths

    def _all(self, x: Tensor) -> list[Tensor]:
        """Return what every process passes, in the order of the processes."""
        gathered = [torch.empty_like(x) for _ in range(len(self._bounds) - 1)]
        dist.all_gather(gathered, x.contiguous(), group=self._group)
        return gathered

    def _from_owners(self, numbers: Tensor, read: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """Bring rows of tensors from the processes that hold them.

        Args:
            numbers: Of the chunks, [U], ascending.
            read: Returns rows of this process's tensors, by numbers of its own.
        """
        device = self._share.landmarks.device
        like = read(torch.zeros(0, dtype=torch.long, device=device))
        parts: list[list[Tensor]] = [[x] for x in like]
        bounds = torch.tensor(self._bounds)
        places = torch.searchsorted(numbers.cpu(), bounds).tolist()
        for owner, (begin, end) in enumerate(itertools.pairwise(places)):
            if begin == end:
                continue
            if owner == self._rank:
                rows = read((numbers[begin:end] - self._bounds[owner]).to(device))
            else:
                rows = [x.new_empty(end - begin, *x.shape[1:]) for x in like]
            for part, x in zip(parts, rows, strict=True):
                # as bytes: not every backend knows every dtype
                data = x.contiguous().view(torch.uint8)
                source = dist.get_global_rank(self._group, owner) if self._group else owner
                dist.broadcast(data, source, group=self._group)
                part.append(data.view(x.dtype))
        return [torch.cat(part) for part in parts]
