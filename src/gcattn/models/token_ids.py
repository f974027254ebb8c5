"""Check that ids and labels lie within the vocabulary."""

import torch
from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig

from gcattn.chunking.labels import IGNORED


def check_ids(name: str, ids: Tensor, vocab_size: int) -> None:
    """Refuse ids outside the vocabulary; for "labels", -100 stands for no loss.

    On a GPU, where a check would mean waiting, nothing is checked: there such an id fails in the
    embedding, and such a label makes the loss NaN.

    Raises:
        ValueError: One is outside; it is named.
    """
    if not ids.is_cpu or torch.compiler.is_compiling():
        return
    if ids.numel() == 1 and 0 <= ids.item() < vocab_size:
        return  # a decoded token
    outside = (ids < 0) | (ids >= vocab_size)
    allowed = f"ids of the vocabulary, 0 … {vocab_size - 1}"
    if name == "labels":
        outside &= ids != IGNORED
        allowed += f", or {IGNORED} where there is no loss"
    if outside.any():
        raise ValueError(f"{name} must be {allowed}, got {int(ids[outside][0])}.")


def check_special_ids(config: PreTrainedConfig, vocab_size: int) -> None:
    """Refuse special tokens outside the vocabulary, with which generation would never end.

    Raises:
        ValueError: One is outside; it is named.
    """
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        value = getattr(config, name)
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is not None and not 0 <= token_id < vocab_size:
                raise ValueError(
                    f"{name} = {token_id} must be an id of the vocabulary, 0 … {vocab_size - 1}."
                )
