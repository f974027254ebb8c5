"""Ctrl-C and SIGTERM during training: finish the step, save, stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `timeout`, torchrun and batch systems signal a whole group, and the parent passes its own on:
# signals that come together are one wish
TOGETHER_SECONDS = 2.0


class Interruption(TrainerCallback):
    """Turn the first SIGINT or SIGTERM into a checkpoint at the end of the step.

    A later one acts as usual. With several processes all stop at the same step, whichever of them
    was signalled.

    Attributes:
        stopped_by: The signal that ended training, 0 if none did.
    """

    def __init__(self) -> None:
        self.stopped_by = 0
        self._received = 0
        self._received_at = 0.0
        self._in_flight: torch.Tensor | None = None
        self._previous: dict[int, Any] = {}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Listen for signals inside the block; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            self._restore()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask the trainer to save and stop when any process was signalled."""
        signalled = self._any_process(args.device)
        if signalled and state.global_step < state.max_steps:
            self.stopped_by = signalled
            control.should_save = True
            control.should_training_stop = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._received:
            self._received, self._received_at = number, time.monotonic()
        elif time.monotonic() - self._received_at > TOGETHER_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _any_process(self, device: torch.device) -> int:
        """Return a signal that some process received up to the last step, 0 if none did."""
        if not (dist.is_available() and dist.is_initialized()):
            return self._received
        # read one step late: by then the reduction is done and the host need not wait for this step
        arrived, self._in_flight = self._in_flight, torch.tensor(self._received, device=device)
        dist.all_reduce(self._in_flight, op=dist.ReduceOp.MAX)
        return 0 if arrived is None else int(arrived)
