"""Work that another thread does, in order, while the caller goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self


class InOrder:
    """One thread that does what it is given, one after the other; a context manager.

    Writing a part of a memory waits for the disk, and reading the next block for the GPU: so they
    take place at the same time. Nothing is done after something has failed.

    Args:
        most_waiting: How many pieces of work may wait behind the one that is being done; they hold
            their chunks in memory.
    """

    def __init__(self, most_waiting: int = 1) -> None:
        self._most_waiting = most_waiting
        self._thread = ThreadPoolExecutor(1)
        self._given: deque[Future[None]] = deque()
        self._has_failed = False

    def do(self, work: Callable[[], None]) -> None:
        """Have `work` done after all before it; wait while too much is waiting.

        Raises:
            BaseException: What earlier work raised.
        """
        while len(self._given) > self._most_waiting:
            self._given.popleft().result()
        self._given.append(self._thread.submit(self._try, work))

    def finish(self) -> None:
        """Wait until everything is done; raises what it raised."""
        while self._given:
            self._given.popleft().result()

    def _try(self, work: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            work()
        except BaseException:
            self._has_failed = True
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *args: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            # after an error only what has begun is waited for
            self._thread.shutdown(wait=True, cancel_futures=True)
