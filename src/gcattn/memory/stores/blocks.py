"""A growing sequence in host memory: blocks, so that growth never copies what is there.

Shapes: n items added, U items asked for.
"""

from bisect import bisect_right
from itertools import pairwise

import torch
from torch import Tensor

from gcattn.memory.stores.store import host_tensor

# block size doubles with the sequence, within these bounds: a fetch looks into few blocks, growth
# never copies what is stored, and pinning is paid seldom
LEAST_ITEMS, MOST_ITEMS = 256, 8192


class HostBlocks:
    """Items of one shape and dtype, in blocks of host memory, pinned where there is a GPU."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._starts: list[int] = []  # number of the first item of each block
        self._num_items = 0

    def __len__(self) -> int:
        return self._num_items

    @property
    def num_bytes(self) -> int:
        """Bytes in use."""
        if not self._blocks:
            return 0
        return self._blocks[0][0].numel() * self._blocks[0].element_size() * self._num_items

    def append(self, items: Tensor) -> None:
        """Append a copy of items [n, …]."""
        at = self._num_items
        end = at + len(items)
        while len(items):
            if not self._blocks or at == self._starts[-1] + len(self._blocks[-1]):
                size = min(max(at, LEAST_ITEMS), MOST_ITEMS)
                self._blocks.append(host_tensor((size, *items.shape[1:]), items.dtype))
                self._starts.append(at)
            free = self._blocks[-1][at - self._starts[-1] :]
            fitting = items[: len(free)]
            free[: len(fitting)].copy_(fitting)
            at, items = at + len(fitting), items[len(fitting) :]
        self._num_items = end

    def truncate(self, num_items: int) -> None:
        """Drop all but the first `num_items`."""
        while self._starts and self._starts[-1] > num_items:
            self._starts.pop()
            self._blocks.pop()
        self._num_items = num_items

    def __getitem__(self, number: int) -> Tensor:
        block = bisect_right(self._starts, number) - 1
        return self._blocks[block][number - self._starts[block]]

    def gather(self, numbers: Tensor) -> Tensor:
        """Copy items [U] to a new tensor on the host; numbers ascend."""
        if not self._blocks:
            raise IndexError("There is nothing to gather.")
        like = self._blocks[0]
        gathered = host_tensor((len(numbers), *like.shape[1:]), like.dtype)
        # numbers ascend, so those of a block are adjacent
        bounds = torch.searchsorted(numbers, torch.tensor(self._starts)).tolist()
        places = pairwise([*bounds, len(numbers)])
        for block, start, (begin, end) in zip(self._blocks, self._starts, places, strict=True):
            if begin < end:
                here = numbers[begin:end] - start
                torch.index_select(block, 0, here, out=gathered[begin:end])
        return gathered
