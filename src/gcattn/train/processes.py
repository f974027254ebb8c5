"""What one of several processes does for all of them."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

T = TypeVar("T")


def on_first_process(processes: PartialState, action: Callable[[], T]) -> T:
    """Return what the first process gets, or raise in every process what it raises."""
    outcome: list[T | Exception | None] = [None]
    if processes.is_main_process:
        try:
            outcome[0] = action()
        except (ValueError, OSError) as error:
            outcome[0] = error
    broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]  # type: ignore[return-value]
