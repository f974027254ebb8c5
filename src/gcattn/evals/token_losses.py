"""The loss of every token of one document, read segment by segment in bounded memory.

Letters: L tokens of the document, T tokens of a segment, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.chunking import whole_chunks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_SEGMENT_LENGTH = 4096


@torch.inference_mode()
def token_losses(
    model: PreTrainedModel,
    token_ids: Tensor,
    *,
    segment_length: int = DEFAULT_SEGMENT_LENGTH,
    on_tokens: Callable[[int], None] | None = None,
) -> Tensor:
    """Compute the loss of every token but the first, given all tokens before it.

    Works for every causal model of transformers: each call takes the next segment and
    the cache that the call before returned. Logits exist for one segment at a time. A segment ends
    one token before its last target, so the first token of a segment is predicted by the last
    logits of the segment before, and every token counts once.

    Args:
        model: Any causal language model, in evaluation mode.
        token_ids: The document, int64 [L].
        segment_length: Tokens read by one call (T); a DRT reads whole chunks.
        on_tokens: Called with the number of tokens of every finished segment.

    Returns:
        Losses in nats of tokens 1 … L-1, float32 [L-1], on the CPU.

    Raises:
        ValueError: `token_ids` or `segment_length` are too short, or the model can't continue from
            its cache or take so many positions.
    """
    from gcattn.models import DRTConfig
    from gcattn.models.cache_name import CACHE_NAME, named_cache

    if segment_length < 1:
        raise ValueError(f"segment_length must be at least 1, got {segment_length}.")
    if token_ids.dim() != 1 or len(token_ids) < 2:
        raise ValueError(f"token_ids must have shape [L], L >= 2, got {list(token_ids.shape)}.")
    if isinstance(model.config, DRTConfig):
        segment_length = whole_chunks(segment_length, model.config.chunk_size)
    token_ids = token_ids.to(model.device)
    num_targets = len(token_ids) - 1
    losses = torch.empty(num_targets, dtype=torch.float32)
    cache = None
    for start in range(0, num_targets, segment_length):
        stop = min(start + segment_length, num_targets)
        output = _forward(model, token_ids[start:stop], named_cache(cache))
        cache = output.get(CACHE_NAME)
        if cache is None and stop < num_targets:
            raise ValueError(
                f"{type(model).__name__} returns no cache to continue from; read the "
                f"document in one segment of at least {num_targets} tokens."
            )
        logits = output["logits"][0].float()  # [T, V]
        losses[start:stop] = F.cross_entropy(
            logits, token_ids[start + 1 : stop + 1], reduction="none"
        )
        if on_tokens is not None:
            on_tokens(stop - start)
    return losses


def _forward(model: PreTrainedModel, segment: Tensor, past: dict[str, Any]) -> dict:
    try:
        return model(input_ids=segment[None], use_cache=True, **past)
    except IndexError as error:
        limit = getattr(model.config, "max_position_embeddings", None)
        raise ValueError(
            f"{type(model).__name__} cannot read on ({error}); it may have been made for at most "
            f"{limit} positions."
        ) from error
