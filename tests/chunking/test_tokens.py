"""Landmarks in plain ids, and where a prompt closes."""

import pytest
import torch

from gcattn.chunking import insert_landmarks, prompt_breaks
from gcattn.chunking.breaks import random_breaks


def test_a_landmark_follows_every_full_chunk_and_an_open_chunk_has_none():
    columns, _ = insert_landmarks(torch.arange(10, 18).unsqueeze(0), 4, 99)
    assert columns.tolist() == [[10, 11, 12, 99, 13, 14, 15, 99, 16, 17]]


def test_ids_that_hold_the_landmark_are_refused():
    with pytest.raises(ValueError, match="input_ids hold the landmark token 99"):
        insert_landmarks(torch.tensor([[1, 99]]), 4, 99)


def test_a_chunk_without_room_for_a_token_is_refused():
    with pytest.raises(ValueError, match="chunk_size must be at least 2"):
        insert_landmarks(torch.tensor([[1, 2]]), 1, 99)


def test_a_prompt_closes_in_front_of_its_last_token_and_of_what_asks():
    one, padded = torch.ones(1, 13).bool(), torch.ones(1, 13).bool()
    padded[0, :3] = False
    assert prompt_breaks(one).nonzero()[:, 1].tolist() == [3, 11]
    assert prompt_breaks(padded).nonzero()[:, 1].tolist() == [3, 11]


def test_a_short_prompt_closes_in_front_of_its_last_token():
    valid = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1]]).bool()
    expected = [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert prompt_breaks(valid).int().tolist() == expected


def test_random_breaks_follow_the_generator_and_the_probability():
    draw = [random_breaks((4, 5000), 0.25, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draw)
    assert abs(draw[0].float().mean().item() - 0.25) < 0.02
    with pytest.raises(ValueError, match=r"\[0, 1\), got 1.5"):
        random_breaks((1, 1), 1.5, torch.Generator())
