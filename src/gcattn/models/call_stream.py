"""Which stream a call runs on: a cache, or a stream that keeps nothing."""

from typing import TYPE_CHECKING

import torch
from transformers.utils import logging

from gcattn.memory.cache import DRTCache
from gcattn.memory.sizes import check_same_sizes
from gcattn.memory.stream import Stream

if TYPE_CHECKING:
    from gcattn.models.pretrained import DRTPreTrainedModel

logger = logging.get_logger(__name__)


def stream_of_call(
    model: "DRTPreTrainedModel", past: DRTCache | None, use_cache: bool | None
) -> Stream:
    """Return the cache of earlier calls, a new one, or a stream that keeps nothing.

    Args:
        model: The decoder that is called.
        past: The cache that was passed; it is used even where `use_cache` is False.
        use_cache: Whether to return a cache; by default only where no gradients are recorded.

    Raises:
        ValueError: The cache, or the memory under it, is of a model of other sizes or weights.
    """
    if use_cache is None:
        use_cache = model.config.use_cache and not torch.is_grad_enabled()
    if past is None and not use_cache:
        return Stream(model.config)
    if model.training and torch.is_grad_enabled():
        if past is None and _is_checkpointing(model):
            logger.warning_once("Gradient checkpointing keeps no cache: use_cache=False.")
            return Stream(model.config)
        logger.warning_once("Gradients do not flow into a cache; train without use_cache.")
    if past is None:
        past = DRTCache(model.config)
    check_same_sizes(past.config, model.config)
    past.bind(model)
    return past


def _is_checkpointing(model: "DRTPreTrainedModel") -> bool:
    """Say whether layers will run twice, which would extend a cache twice."""
    layers = (m for m in model.modules() if hasattr(m, "gradient_checkpointing"))
    return any(layer.gradient_checkpointing for layer in layers)
