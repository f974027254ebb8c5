"""Claims about signals while a model trains."""

import signal

import pytest

from gcattn.train import interruption as module
from gcattn.train.interruption import Interruption


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_come_together_are_one_wish(second):
    # as when a batch system signals a group and a parent passes it on
    interruption = Interruption()
    with interruption.watch():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(second)
        assert interruption._received == signal.SIGINT


@pytest.fixture
def interruptible():
    """Give SIGINT Python's handler: a job in the background starts with none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_later_signal_acts_as_it_would_have_without_us(interruptible, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER_SECONDS", 0.0)
    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt), interruption.watch():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_those_of_before_when_training_ends():
    before = [signal.getsignal(number) for number in module.SIGNALS]
    with Interruption().watch():
        assert [signal.getsignal(number) for number in module.SIGNALS] != before
    assert [signal.getsignal(number) for number in module.SIGNALS] == before
