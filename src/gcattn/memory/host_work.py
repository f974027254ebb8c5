"""The host's work between the kernels of a step: look at numbers, append to stores, fetch.

A captured graph replays only kernels. So code that needs such work does not do it but hands it in
here, and the capture puts it between two graphs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

Work: TypeAlias = Callable[[], None]


class HostWork:
    """Does work at once, or hands it to the capture of the kernels before and after it."""

    def __init__(self) -> None:
        self._take: Callable[[Work], None] | None = None
        self._later: list[Work] = []

    def begin(self) -> None:
        """Begin a step, and drop the work of one that failed."""
        self._later = []

    def do(self, work: Work) -> None:
        """Do some work now; it reads and writes only tensors that stay in place."""
        if self._take is None:
            work()
        else:
            self._take(work)

    def do_last(self, work: Work) -> None:
        """Do some work when the kernels of the step have been launched."""
        self._later.append(work)

    def finish(self) -> None:
        """Do the work that was left for last."""
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
