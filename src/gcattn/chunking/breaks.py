"""Where a prompt's open chunk closes, so that generation starts with a fresh retrieval.

Shapes: B batch, T tokens.
"""

import torch
from torch import Tensor


def prompt_breaks(valid: Tensor) -> Tensor:
    """Mark the token before each row's last one, bool [B, T].

    The last prompt token predicts the first generated one, so it must be *served by* the fresh
    retrieval rather than take part in asking for it: the chunk closes in front of it.

    Args:
        valid: False where a token is padding, bool [B, T].

    Returns:
        `chunk_breaks` for `forward`; rows of one token are left open.
    """
    behind = valid.flip(1).cumsum(1).flip(1)  # valid tokens from here to the end
    return valid & (behind == 2)


def random_breaks(shape: tuple[int, int], probability: float, generator: torch.Generator) -> Tensor:
    """Mark tokens at random, bool [B, T], so that a model meets short chunks while it trains.

    Raises:
        ValueError: `probability` is not in [0, 1).
    """
    if not 0 <= probability < 1:
        raise ValueError(f"The probability of a chunk break must lie in [0, 1), got {probability}.")
    return torch.rand(shape, generator=generator) < probability
