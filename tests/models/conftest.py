"""Captured graphs where there is no GPU."""

import pytest


@pytest.fixture
def graphs(monkeypatch):
    """Let graphs be captured on a CPU."""
    # not before tests/conftest.py has said how Triton is to be imported
    from emulated_graphs import EmulatedGraphs
    from gcattn.models import captured_step, prompt_segment, token_step

    monkeypatch.setattr(EmulatedGraphs, "replays", 0)
    monkeypatch.setattr(EmulatedGraphs, "is_stale", False)
    monkeypatch.setattr(captured_step, "RecordedCalls", EmulatedGraphs)
    monkeypatch.setattr(token_step, "LANDMARKS_UNTIL_RECORDING", token_step.LANDMARKS_UNTIL_CAPTURE)
    monkeypatch.setattr(prompt_segment, "DEVICES", ("cpu",))
    for captures in (token_step, prompt_segment):
        monkeypatch.setattr(
            captures,
            "reason_not_to_capture",
            lambda model, _: (
                None if captured_step.CapturedModules(model).are_those_of(model) else ""
            ),
        )
    return EmulatedGraphs
