"""What a person sees while training runs: a live line on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ProgressDisplay(TrainerCallback):
    """Show loss, learning rate, gradient norm, tokens per second and the time left.

    Args:
        console: Where to write.
        tokens_per_step: For the time left.
    """

    def __init__(self, console: Console, tokens_per_step: int) -> None:
        self.console = console
        self.tokens_per_step = tokens_per_step
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the live line if this is a terminal."""
        if state.is_world_process_zero and self.console.is_terminal:
            columns = (TextColumn("{task.completed:,}/{task.total:,}"), BarColumn(20))
            self._live = Progress(
                *columns, TextColumn("{task.fields[status]}"), console=self.console
            )
            self._task = self._live.add_task(
                "train", total=state.max_steps, completed=state.global_step, status="starting"
            )
            self._live.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Advance the live line."""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show a training or an evaluation record."""
        if not state.is_world_process_zero or logs is None:
            return
        if "eval_loss" in logs:
            step = f"step {state.global_step:,}"
            self.console.print(f"{step}  validation loss {logs['eval_loss']:.4f}", highlight=False)
        elif "loss" in logs:
            status = self._status(state, logs)
            if self._live is not None and self._task is not None:
                self._live.update(self._task, completed=state.global_step, status=status)
            else:
                done = f"step {state.global_step:,}/{state.max_steps:,}"
                self.console.print(f"{done}  {status}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the live line, whatever ended training."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _status(self, state: TrainerState, logs: dict[str, float]) -> str:
        speed = logs["tokens_per_second"]
        seconds = (state.max_steps - state.global_step) * self.tokens_per_step / speed
        return (
            f"loss {logs['loss']:.4f}  lr {logs['learning_rate']:.2e}  "
            f"grad {logs.get('grad_norm', 0.0):.2f}  {speed:,.0f} tok/s  ETA {_clock(seconds)}"
        )


def _clock(seconds: float) -> str:
    days, rest = divmod(round(seconds), 86400)
    return (f"{days}d " if days else "") + time.strftime("%H:%M:%S", time.gmtime(rest))
