"""Token ids as data of speed measurements: uniform, since no cost depends on what a text says."""

import torch
from torch import Tensor

from gcattn.models import DRTConfig


def random_tokens(
    config: DRTConfig, batch: int, length: int, device: torch.device, seed: int
) -> Tensor:
    """Draw ids [B, T] of the vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, config.vocab_size, (batch, length), generator=generator).to(device)
