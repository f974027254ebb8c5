"""What predicts what."""

import torch

from gcattn.chunking import next_token_labels


def test_each_token_predicts_the_next_and_the_last_nothing():
    labels = torch.tensor([[5, 6, 7, 8]])
    assert next_token_labels(labels).tolist() == [[6, 7, 8, -100]]


def test_nothing_is_predicted_from_or_to_padding():
    labels = torch.tensor([[5, 6, 7, 8, 9]])
    mask = torch.tensor([[0, 1, 1, 1, 0]])
    assert next_token_labels(labels, mask).tolist() == [[-100, 7, 8, -100, -100]]


def test_nothing_is_predicted_across_documents():
    labels = torch.tensor([[5, 6, 7, 8]])
    documents = torch.tensor([[0, 0, 1, 1]])
    assert next_token_labels(labels, None, documents).tolist() == [[6, -100, 8, -100]]
