"""Where a prompt's chunks close, so that generation starts with a fresh retrieval.

Shapes: B batch, T tokens.
"""

import torch
from torch import Tensor

# tokens at the end of a prompt that ask for what it needs
ASKING_TOKENS = 8
# tokens of a prompt from one that closes its chunk to the end, that token included
CLOSES_BEFORE_END = (2, ASKING_TOKENS + 2)


def prompt_breaks(valid: Tensor) -> Tensor:
    """Mark where a prompt's chunks close, bool [B, T]: after two tokens of each row.

    The last prompt token predicts the first generated one, so it must be *served by* the fresh
    retrieval rather than take part in asking for it: a chunk closes before it. That chunk asks
    and so is never among what is retrieved; it holds the `ASKING_TOKENS` before, and what the
    prompt says just before them closes in a chunk of its own, to be found like everything else.

    Args:
        valid: False where a token is padding, bool [B, T].

    Returns:
        `chunk_breaks` for `forward`; rows of one token are left open, those of fewer than
        `ASKING_TOKENS + 2` close once.
    """
    behind = valid.flip(1).cumsum(1).flip(1)  # valid tokens from here to the end
    last, before = CLOSES_BEFORE_END
    return valid & ((behind == last) | (behind == before))


def random_breaks(shape: tuple[int, int], probability: float, generator: torch.Generator) -> Tensor:
    """Mark tokens at random, bool [B, T], so that a model meets short chunks while it trains.

    Raises:
        ValueError: `probability` is not in [0, 1).
    """
    if not 0 <= probability < 1:
        raise ValueError(f"The probability of a chunk break must lie in [0, 1), got {probability}.")
    return torch.rand(shape, generator=generator) < probability
