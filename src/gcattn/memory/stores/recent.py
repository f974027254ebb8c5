"""A bounded, shared cache of recently read chunks.

Shapes: S slots per chunk, G key/value heads, D head dim.
"""

import threading
from collections import OrderedDict
from typing import Any, Self

from torch import Tensor


class RecentChunks:
    """The last chunks [2, S, G, D] by number, up to a number of bytes; threads may share it."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._chunks: OrderedDict[int, Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self.num_bytes = 0

    def get(self, number: int) -> Tensor | None:
        """Return a chunk if it is cached."""
        with self._lock:
            if number in self._chunks:
                self._chunks.move_to_end(number)
            return self._chunks.get(number)

    def put(self, number: int, chunk: Tensor) -> None:
        """Cache a chunk that nobody writes to, and drop the oldest ones if there are too many."""
        size = chunk.numel() * chunk.element_size()
        with self._lock:
            if number not in self._chunks:
                self.num_bytes += size
            self._chunks[number] = chunk
            self._chunks.move_to_end(number)
            while self.num_bytes > self.budget_bytes:
                self.num_bytes -= size
                self._chunks.popitem(last=False)

    def truncate(self, num_chunks: int) -> None:
        """Drop chunks whose number is not below `num_chunks`."""
        with self._lock:
            for number in [n for n in self._chunks if n >= num_chunks]:
                chunk = self._chunks.pop(number)
                self.num_bytes -= chunk.numel() * chunk.element_size()

    def __deepcopy__(self, memo: Any) -> Self:
        # a copy starts empty and fills as it is used
        return type(self)(self.budget_bytes)

    def __reduce__(self) -> Any:
        return type(self), (self.budget_bytes,)
