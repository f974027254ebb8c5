"""Claims about the losses of one document read in segments."""

import pytest
import torch
import torch.nn.functional as F

from gcattn.evals.token_losses import token_losses


def document(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, 16_000, (length,), generator=generator)


@pytest.mark.parametrize("name", ["llama", "drt"])
@pytest.mark.parametrize("segment_length", [1, 7, 32, 40, 41, 1000])
def test_segments_give_the_losses_of_one_full_forward(models, name, segment_length):
    token_ids = document(41)
    with torch.no_grad():
        logits = models[name](token_ids[None]).logits[0].float()
    expected = F.cross_entropy(logits[:-1], token_ids[1:], reduction="none")
    losses = token_losses(models[name], token_ids, segment_length=segment_length)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)


def test_every_token_but_the_first_is_read_once(models):
    steps = []
    losses = token_losses(models["llama"], document(30), segment_length=8, on_tokens=steps.append)
    assert losses.shape == (29,)
    assert steps == [8, 8, 8, 5]


def test_losses_of_a_prefix_are_those_of_the_whole(models):
    token_ids = document(50)
    whole = token_losses(models["drt"], token_ids, segment_length=16)
    prefix = token_losses(models["drt"], token_ids[:23], segment_length=16)
    torch.testing.assert_close(prefix, whole[:22], rtol=1e-4, atol=1e-4)


def test_a_segment_of_no_tokens_is_refused(models):
    with pytest.raises(ValueError, match="segment_length must be at least 1, got 0"):
        token_losses(models["llama"], document(5), segment_length=0)


def test_a_document_of_one_token_is_refused(models):
    with pytest.raises(ValueError, match=r"L >= 2, got \[1\]"):
        token_losses(models["llama"], document(1))


def test_a_model_without_positions_left_is_refused_in_words():
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 16, "vocab_size": 20}
    model = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    with pytest.raises(ValueError, match="at most 16 positions"):
        token_losses(model, torch.arange(20), segment_length=8)


class WithoutCache(torch.nn.Module):
    """Logits alone, as of a model that keeps no cache."""

    device, config = torch.device("cpu"), None

    def forward(self, input_ids, use_cache, **past):
        return {"logits": torch.zeros(*input_ids.shape, 7)}


def test_a_model_without_cache_reads_one_segment_only():
    token_ids = torch.arange(7)
    losses = token_losses(WithoutCache(), token_ids, segment_length=6)
    torch.testing.assert_close(losses, torch.full((6,), 7.0).log())
    with pytest.raises(ValueError, match="one segment of at least 6 tokens"):
        token_losses(WithoutCache(), token_ids, segment_length=5)
