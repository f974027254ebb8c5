"""Several processes read blocks of one library; the first of them writes.

Started by `torchrun`, each process reads its own blocks and sends their chunks to the first, which
writes them to the memory in the order of the library. While it writes, the others keep reading.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load, save

from gcattn.library.reading import ReadBlock

# how many blocks a process may be ahead of the first one
_AHEAD = 2
_TENSORS = ("landmarks", "keys", "values", "lengths", "token_ids", "lines")
_NOTES = ("counts", "problems", "is_last")
Key = TypeVar("Key")
# the name of a block, the process that reads it, and in that process what returns it
Begun = tuple[Key, int, Callable[[], ReadBlock] | None]


@contextmanager
def joined_processes() -> Iterator[None]:
    """Join the other processes that `torchrun` started, if any, each on its own GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


class Ranks:
    """The processes of one build; alone where `torch.distributed` has not been initialized.

    Attributes:
        rank: Number of this process.
        count: How many there are.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank, self.count = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        # chunks are sent from host memory, whatever connects the devices
        self._group: Any = dist.new_group(backend="gloo") if self.count > 1 else None
        self._sent: deque[tuple[Any, torch.Tensor]] = deque()

    @property
    def writes(self) -> bool:
        """Whether this process writes the memory."""
        return self.rank == 0

    def agree(self, decide: Callable[[], Any]) -> Any:
        """Return the first process's result in all of them; an error is raised in all."""
        box: list[Any] = [None, None]
        if self.writes:
            try:
                box[0] = decide()
            except Exception as error:
                box[1] = error
        if self.count > 1:
            dist.broadcast_object_list(box, src=0, group=self._group)
        value, failed = box
        if failed is not None:
            raise failed
        return value

    def hand_over(self, block: ReadBlock | None, owner: int) -> ReadBlock | None:
        """Send a block from the process that read it to the first one; None elsewhere."""
        if owner == 0 or self.count == 1:
            return block
        if self.rank == owner:
            assert block is not None
            self._send(block)
        return self._receive(owner) if self.writes else None

    def in_turn(self, begun: Iterable[Begun[Key]]) -> Iterator[tuple[Key, ReadBlock | None]]:
        """Hand over blocks in their order, each some blocks after it was begun.

        So a device reads a block while its process finds the next one.

        Args:
            begun: For each block anything that names it, its owner, and in the owner what returns
                it.

        Yields:
            The name and, in the process that writes, the block.
        """
        waiting: deque[Begun[Key]] = deque()

        def handed() -> tuple[Key, ReadBlock | None]:
            key, owner, collect = waiting.popleft()
            return key, self.hand_over(None if collect is None else collect(), owner)

        for block in begun:
            waiting.append(block)
            if len(waiting) > self.count:
                yield handed()
        while waiting:
            yield handed()

    def wait(self) -> None:
        """Wait until everything that was sent has arrived, and for all others."""
        while self._sent:
            self._sent.popleft()[0].wait()
        if self.count > 1:
            dist.barrier(group=self._group)

    def _send(self, block: ReadBlock) -> None:
        note = json.dumps({name: getattr(block, name) for name in _NOTES})
        tensors = {name: getattr(block, name).contiguous() for name in _TENSORS}
        data = torch.frombuffer(bytearray(save(tensors, {"note": note})), dtype=torch.uint8)
        for message in (torch.tensor([len(data)]), data):
            self._sent.append((dist.isend(message, 0, group=self._group), message))
        while len(self._sent) > 2 * _AHEAD:
            self._sent.popleft()[0].wait()

    def _receive(self, owner: int) -> ReadBlock:
        size = torch.zeros(1, dtype=torch.long)
        dist.recv(size, owner, group=self._group)
        data = torch.empty(int(size), dtype=torch.uint8)
        dist.recv(data, owner, group=self._group)
        raw = bytes(data.numpy())
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        notes: dict[str, Any] = json.loads(header["__metadata__"]["note"])
        return ReadBlock(**(notes | load(raw)))
