"""What tests read from the folder of a run."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gcattn.models import DRTForCausalLM
from gcattn.train.config import TrainConfig
from gcattn.train.run import TrainingOutcome, run_training
from gcattn.train.run_log import read_log
from gcattn.train.trainer import DRTTrainer


def records(config: TrainConfig) -> list[dict[str, Any]]:
    """The log without what a clock decides."""
    log = read_log(Path(config.output) / "log.jsonl")
    return [{k: v for k, v in record.items() if k != "tokens_per_second"} for record in log]


def contents(config: TrainConfig) -> dict[str, bytes]:
    """Every file of the run but its configuration, which each start writes."""
    files = [file for file in Path(config.output).rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files if file.name != "config.yaml"}


def losses(config: TrainConfig, kind: str = "train") -> dict[int, float]:
    return {r["step"]: r["loss"] for r in records(config) if r["kind"] == kind}


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return DRTForCausalLM.from_pretrained(Path(config.output) / "model").state_dict()


def assert_same_run(config: TrainConfig, other: TrainConfig) -> None:
    """Every logged number and every weight is the same bit for bit."""
    assert records(config) == records(other)
    one, two = weights(config), weights(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def run_and_signal(
    monkeypatch: pytest.MonkeyPatch,
    config: Any,
    number: int,
    step: int,
    run: Callable[[Any], TrainingOutcome] = run_training,
) -> TrainingOutcome:
    """Train, and receive a signal in the middle of a step."""
    original = DRTTrainer.training_step
    sent: list[int] = []

    def step_with_signal(self: DRTTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == step - 1 and not sent:
            sent.append(number)
            signal.raise_signal(number)
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DRTTrainer, "training_step", step_with_signal)
        return run(config)
