"""Records of a run: every logged step goes to `log.jsonl` and, if installed, TensorBoard."""

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gcattn.storage.full_disk import FULL
from gcattn.train.run_log import RunLog

TENSORBOARD_FOLDER = "tensorboard"


class Records(TrainerCallback):
    """Write training and evaluation records from the first process.

    Args:
        output: Folder of the run.
    """

    def __init__(self, output: Path) -> None:
        self.log = RunLog(output)
        self._folder = output / TENSORBOARD_FOLDER
        self._writer: Any = None
        self._hook = threading.excepthook

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open TensorBoard's file; what a resumed run will write again is dropped from it."""
        if state.is_world_process_zero and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._hook, threading.excepthook = threading.excepthook, self._on_thread_error
            self._writer = SummaryWriter(str(self._folder), purge_step=state.global_step + 1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one record."""
        record = _record(logs or {})
        if not state.is_world_process_zero or record is None:
            return
        self.log.append({"step": state.global_step, **record})
        if self._writer is not None:
            kind = record["kind"]
            for name, value in record.items():
                if name != "kind":
                    self._writer.add_scalar(f"{kind}/{name}", value, state.global_step)

    def close(self) -> None:
        """Put everything on disk."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            finally:
                threading.excepthook = self._hook

    def _on_thread_error(self, error: threading.ExceptHookArgs) -> None:
        # TensorBoard's thread passes it on to the next call, so that it need not be printed here
        if not (isinstance(error.exc_value, OSError) and error.exc_value.errno in FULL):
            self._hook(error)


def _record(logs: dict[str, float]) -> dict[str, Any] | None:
    if "eval_loss" in logs:
        return {"kind": "validation", "loss": logs["eval_loss"]}
    if "loss" in logs:
        names = (
            "loss",
            "retrieval_loss",
            "learning_rate",
            "grad_norm",
            "tokens",
            "tokens_per_second",
        )
        return {"kind": "train", **{name: logs[name] for name in names if name in logs}}
    return None
