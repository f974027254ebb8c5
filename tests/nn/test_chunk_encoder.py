"""The chunk encoder beyond its own chunk: the last token of the chunk before stands in front."""

import pytest
import torch

from gcattn.memory.chunk_tail import ChunkTail
from gcattn.models import DRTConfig
from gcattn.nn.chunk_encoder import ChunkEncoder
from gcattn.testing import random_config


@pytest.mark.parametrize(
    ("chunk", "slot", "reaches_next"),
    [(0, 2, True), (0, 4, False), (1, 4, False)],
    ids=["last token", "unused slot", "next chunk of another document"],
)
def test_a_key_at_slot_0_is_made_of_the_last_token_of_the_chunk_before(chunk, slot, reaches_next):
    torch.manual_seed(0)
    config = random_config(
        0, chunk_size=6, key_convolution_size=2, landmark_pooling=False, landmark_overlap=0
    )
    encoder = ChunkEncoder(config).double()
    torch.nn.init.normal_(encoder.key_convolution.weight)
    grid = torch.randn(1, 3, 6, config.hidden_size, dtype=torch.float64)
    lengths, documents = torch.tensor([[3, 5, 5]]), torch.tensor([[0, 0, 1]])
    changed = grid.clone()
    changed[0, chunk, slot] += 1
    keys, moved = (encoder(x, lengths, documents, ChunkTail()).keys for x in (grid, changed))
    assert (keys[0, chunk + 1, 0] != moved[0, chunk + 1, 0]).any().item() is reaches_next
    assert torch.equal(keys[0, chunk + 1, 1:], moved[0, chunk + 1, 1:])


@pytest.mark.parametrize(
    ("slot", "reaches_next"), [(4, True), (3, True), (2, False)], ids=["last", "overlap", "before"]
)
def test_a_landmark_stands_for_the_end_of_the_chunk_before_too(slot, reaches_next):
    torch.manual_seed(0)
    sizes = {"chunk_size": 6, "landmark_pooling": True, "landmark_overlap": 2}
    encoder = ChunkEncoder(random_config(0, **sizes, key_convolution_size=1)).double()
    encoder.layers = torch.nn.ModuleList()  # no mixing: a slot is what it was
    grid = torch.randn(1, 2, 6, encoder.config.hidden_size, dtype=torch.float64)
    changed = grid.clone()
    changed[0, 0, slot] += torch.randn(encoder.config.hidden_size, dtype=torch.float64)
    landmarks, moved = (encoder(x, None, None, ChunkTail()).landmarks for x in (grid, changed))
    assert (landmarks[0, 0] != moved[0, 0]).any()
    assert (landmarks[0, 1] != moved[0, 1]).any().item() is reaches_next


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"landmark_overlap": 2, "landmark_pooling": False}, "needs landmark_pooling"),
        ({"landmark_overlap": 64, "landmark_pooling": True}, "less than chunk_size"),
    ],
)
def test_an_overlap_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DRTConfig(**changes)
