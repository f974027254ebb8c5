"""A run that diverges stops with one clear sentence and never saves what is not finite."""

from pathlib import Path

import pytest
import torch

from gcattn.train.checkpoints import list_checkpoints
from gcattn.train.run import run_training
from gcattn.train.trainer import DivergedError, DRTTrainer

from .runs import losses


@pytest.fixture
def poison(monkeypatch):
    """Make a loss or a weight NaN during a step."""

    def install(step: int, what: str) -> None:
        original = DRTTrainer.training_step

        def poisoned(self, model, inputs, *args, **kwargs):
            loss = original(self, model, inputs, *args, **kwargs)
            if self.state.global_step == step - 1 and what == "loss":
                self._window_loss += torch.nan
            if self.state.global_step == step - 1 and what == "gradient":
                next(iter(model.parameters())).grad[0, 0] = torch.inf
            return loss

        monkeypatch.setattr(DRTTrainer, "training_step", poisoned)

    return install


def test_nan_loss_stops_at_the_next_log_line_and_keeps_the_good_checkpoint(make_config, poison):
    config = make_config("training.log_every=3", "training.save_every=2")
    poison(5, "loss")
    with pytest.raises(DivergedError, match=r"loss is nan at step 6; .*run/checkpoint-4\. Lower"):
        run_training(config)
    assert {folder.name for folder in list_checkpoints(Path(config.output))} == {
        "checkpoint-2",
        "checkpoint-4",
    }
    assert set(losses(config)) == {1, 3}


def test_weights_that_are_not_finite_are_never_saved(make_config, poison):
    """The last step before a checkpoint spoils the weights while every loss so far was fine."""
    config = make_config("training.log_every=8", "training.save_every=4", "training.eval_every=0")
    poison(4, "gradient")
    with pytest.raises(DivergedError, match="not finite at step 4; no checkpoint was saved"):
        run_training(config)
    assert list_checkpoints(Path(config.output)) == []


def test_diverged_run_can_go_on_with_a_lower_learning_rate(make_config, poison, monkeypatch):
    config = make_config()
    poison(6, "loss")
    with pytest.raises(DivergedError):
        run_training(config)
    monkeypatch.undo()
    outcome = run_training(make_config("training.learning_rate=0.005"), resume=True)
    assert outcome.step == 8
