"""What a step has the host do between its kernels: look at numbers, append to stores, fetch.

A captured graph replays kernels only. So such work is not done in the lines that ask for it but
handed in here, and whoever captures the lines puts it between two graphs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

Work: TypeAlias = Callable[[], None]


class HostWork:
    """Does work at once, or hands it to whoever captures the kernels before and after it."""

    def __init__(self) -> None:
        self._take: Callable[[Work], None] | None = None
        self._later: list[Work] = []

    def begin(self) -> None:
        """Begin a step: nothing is left to do of one that failed."""
        self._later = []

    def do(self, work: Work) -> None:
        """Do some work now; what it reads and writes are tensors that stay in place."""
        if self._take is None:
            work()
        else:
            self._take(work)

    def do_last(self, work: Work) -> None:
        """Do some work when the kernels of the step have been launched."""
        self._later.append(work)

    def finish(self) -> None:
        """Do what was left for last."""
        later, self._later = self._later, []
        if later:
            self.do(partial(_all, later))

    @contextmanager
    def taken_by(self, take: Callable[[Work], None]) -> Iterator[None]:
        """Hand all work to `take` instead of doing it."""
        self._take = take
        try:
            yield
        finally:
            self._take = None


def _all(works: list[Work]) -> None:
    for work in works:
        work()
