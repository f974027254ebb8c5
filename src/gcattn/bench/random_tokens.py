"""Token ids as data of speed measurements: uniform, since no cost depends on what a text says."""

import torch
from torch import Tensor

from gcattn.models import DRTConfig


def random_tokens(
    config: DRTConfig, batch: int, length: int, device: torch.device, seed: int
) -> Tensor:
    """Draw ids [B, T] of the vocabulary without the landmark's."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, config.vocab_size - 1, (batch, length), generator=generator)
    return (ids + (ids >= config.landmark_token_id).long()).to(device)
