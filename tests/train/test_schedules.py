"""Schedules are functions of the step alone."""

from itertools import pairwise

import pytest

from gcattn.models import DRTForCausalLM
from gcattn.nn.retriever import Retriever
from gcattn.train.config import LengthChange, TopKChange, TrainingSection
from gcattn.train.run import run_training
from gcattn.train.schedules import learning_rate, sequence_length, top_k_change, warmup_steps


def training(**changes):
    values = {"steps": 100, "batch_size": 1, "warmup": 0.1, **changes}
    return TrainingSection(**values)


def test_learning_rate_warms_up_to_the_peak_and_ends_at_the_minimum():
    section = training()
    rates = [learning_rate(step, section) for step in range(section.steps)]
    assert rates[0] == pytest.approx(section.learning_rate / 10)
    assert rates[9] == rates[10] == section.learning_rate
    assert rates[-1] == pytest.approx(section.min_learning_rate)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    middle = (section.learning_rate + section.min_learning_rate) / 2
    assert (rates[54] + rates[55]) / 2 == pytest.approx(middle)


def test_learning_rate_stays_at_the_minimum_after_the_end():
    section = training()
    assert learning_rate(500, section) == pytest.approx(section.min_learning_rate)


@pytest.mark.parametrize(
    ("warmup", "steps"), [(0.0, 0), (0.02, 2), (0.025, 3), (1.0, 1), (30.0, 30)]
)
def test_warmup_is_a_fraction_below_one_and_steps_above(warmup, steps):
    assert warmup_steps(training(warmup=warmup)) == steps


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_shortest_runs_have_a_learning_rate(steps):
    section = training(steps=steps, warmup=0.0)
    assert learning_rate(0, section) == section.learning_rate


def test_top_k_changes_at_its_steps():
    schedule = [TopKChange(step=2, top_k="all"), TopKChange(step=5, top_k=3)]
    changes = [top_k_change(step, schedule) for step in range(7)]
    assert [change.top_k if change else None for change in changes] == (
        [None, None, "all", "all", "all", 3, 3]
    )


def test_length_is_full_before_the_first_entry():
    curriculum = [
        LengthChange(step=1, sequence_length=16),
        LengthChange(step=3, sequence_length=32),
    ]
    assert [sequence_length(s, curriculum, 64) for s in range(5)] == [64, 16, 16, 32, 32]


def test_noise_ends_at_its_step(make_config, monkeypatch):
    seen = []
    original = DRTForCausalLM.forward

    def forward(self, *args, **kwargs):
        seen.append((self.training, kwargs["retrieval"].noise))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(DRTForCausalLM, "forward", forward)
    options = ["model.retrieval_noise=gumbel", "retrieval.noise_steps=3", "training.steps=5"]
    run_training(make_config(*options, "training.eval_every=0", "data.validation=null"))
    assert [noise for is_training, noise in seen if is_training] == ["gumbel"] * 3 + ["none"] * 2
    with pytest.raises(ValueError, match=r"retrieval.noise_steps must be at least 0"):
        make_config("retrieval.noise_steps=-1")


def test_a_spread_of_temperatures_reaches_the_retrievers_while_training_only(
    make_config, monkeypatch
):
    seen = set()
    original = Retriever.forward

    def forward(self, hidden, layout, memory, retrieval, embeddings):
        seen.add((self.training, retrieval.temperature_spread))
        return original(self, hidden, layout, memory, retrieval, embeddings)

    monkeypatch.setattr(Retriever, "forward", forward)
    run_training(make_config("retrieval.temperature_spread=2", "training.steps=2"))
    assert seen == {(True, 2), (False, 1)}
    for bad in ("0.5", ".inf", ".nan"):
        with pytest.raises(ValueError, match=r"retrieval.temperature_spread must"):
            make_config(f"retrieval.temperature_spread={bad}")
