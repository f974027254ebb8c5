"""How fast training goes, without the time that evaluation and saving take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Throughput:
    """Count tokens per second from one reading to the next."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin to count now."""
        self._since = time.perf_counter()
        self._num_tokens = 0

    def add(self, num_tokens: int) -> None:
        """Count tokens."""
        self._num_tokens += num_tokens

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside the block out."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - began

    def read(self) -> float:
        """Return tokens per second since the last reading, and start again."""
        rate = self._num_tokens / max(time.perf_counter() - self._since, 1e-9)
        self.restart()
        return rate
