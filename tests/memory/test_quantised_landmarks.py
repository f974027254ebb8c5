"""Landmarks in 8 bits choose what exact landmarks choose."""

import pytest
import torch

from gcattn.memory.saved.landmarks import ExactLandmarks
from gcattn.memory.saved.quantised_landmarks import QuantisedLandmarks

CPU = torch.device("cpu")


def both(landmarks, visible=None):
    return ExactLandmarks(landmarks, visible), QuantisedLandmarks(landmarks, CPU, visible)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_eight_bits_choose_the_same_chunks(seed, dtype, monkeypatch):
    monkeypatch.setattr("gcattn.memory.saved.quantised_landmarks.CPU_BLOCK", 301)
    generator = torch.Generator().manual_seed(seed)
    landmarks = torch.randn(1000, 24, generator=generator, dtype=torch.float64).to(dtype)
    queries = torch.randn(7, 24, generator=generator, dtype=torch.float64).to(dtype)
    visible = torch.rand(1000, generator=generator) < 0.3 if seed % 2 else None
    exact, rounded = both(landmarks, visible)
    for top_k in (1, 5, 40):
        expected, found = exact.best(queries, top_k), rounded.best(queries, top_k)
        assert torch.equal(found.indices, expected.indices)
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
    assert torch.equal(rounded.at(torch.tensor([[3, 1]])), landmarks[[3, 1]][None])


def test_landmarks_that_rounding_cannot_tell_apart_are_chosen_exactly():
    # all within one step of 8 bits of each other: bounds alone would choose anything
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 24, generator=generator, dtype=torch.float64)
    landmarks = base + 1e-4 * torch.randn(2000, 24, generator=generator, dtype=torch.float64)
    exact, rounded = both(landmarks)
    queries = torch.randn(5, 24, generator=generator, dtype=torch.float64)
    assert torch.equal(rounded.best(queries, 6).indices, exact.best(queries, 6).indices)


def test_fewer_chunks_than_are_wanted_leave_places_empty():
    landmarks = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    visible = torch.tensor([True, False, True, False, False])
    found = QuantisedLandmarks(landmarks, CPU, visible).best(torch.ones(2, 8), 4)
    assert ((found.indices >= 0).sum(-1) == 2).all()


def test_eight_bits_take_a_quarter_of_the_device():
    landmarks = torch.randn(1000, 256)
    held = QuantisedLandmarks(landmarks, CPU).num_bytes()
    assert held["device"] == 1000 * (256 + 4 + 4)
