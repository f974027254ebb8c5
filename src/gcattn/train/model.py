"""The model that a training configuration asks for, checked against the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.train.config import ModelSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gcattn.data.token_shards import TokenShards
    from gcattn.models import DRTConfig, DRTForCausalLM

LANDMARK_TOKEN = "<|landmark|>"
# tokens looked at for a forbidden id before training starts: half a second of reading
SCANNED_TOKENS = 2**28


def config_fields() -> dict[str, Any]:
    """Return the fields of DRTConfig that a configuration may set, with their types."""
    from gcattn.models import DRTConfig

    return inspect.get_annotations(DRTConfig)


def build_model(
    section: ModelSection, shards: TokenShards, tokenizer: PreTrainedTokenizerFast
) -> DRTForCausalLM:
    """Make or load the model, in float32.

    Args:
        section: What to build.
        shards: The training data; its vocabulary is the default for `vocab_size`.
        tokenizer: The tokenizer of the data.

    Raises:
        FileNotFoundError: There is no model at `from`.
        ValueError: A value is refused by DRTConfig, the saved model cannot be read, or the
            vocabulary or the tokenizer of the data does not fit.
    """
    import torch

    from gcattn.data.tokenizer_fingerprint import check_tokenizer_of_model
    from gcattn.models import DRTConfig, DRTForCausalLM

    source = section.from_
    if source is None:
        overrides = _vocabulary(shards, tokenizer) | section.overrides
        config = _checked(lambda: _preset(section.preset)(**overrides))
        check_vocabulary(config, shards)
        return DRTForCausalLM(config)
    if not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(
            f"model.from: {source} holds no saved model (it has no config.json)."
        )
    config = _checked(lambda: DRTConfig.from_pretrained(source, **section.overrides))
    check_tokenizer_of_model(shards, source)
    check_vocabulary(config, shards)
    try:
        return DRTForCausalLM.from_pretrained(source, config=config, dtype=torch.float32)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"model.from: {source} cannot be read: {reason}") from error


def check_vocabulary(config: DRTConfig, shards: TokenShards) -> None:
    """Refuse data whose token ids the model cannot take.

    Raises:
        ValueError: The vocabulary is too large, or the data hold the landmark's id.
    """
    if shards.vocab_size > config.vocab_size:
        raise ValueError(
            f"The data in {shards.folder} were made with a tokenizer of {shards.vocab_size} tokens "
            f"({shards.tokenizer_name}), but model.vocab_size is {config.vocab_size}; "
            "raise it or prepare the data with the model's tokenizer."
        )
    landmark = config.landmark_token_id
    step = 2**22
    for start in range(0, min(shards.num_tokens, SCANNED_TOKENS), step):
        if (shards.tokens(start, min(start + step, shards.num_tokens)) == landmark).any():
            raise ValueError(
                f"The data in {shards.folder} hold token {landmark}, which model.landmark_token_id "
                "reserves for landmarks; choose an id that the data do not use."
            )


def _vocabulary(shards: TokenShards, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return `vocab_size` with room for a landmark that is no token of the data."""
    reserved = tokenizer.convert_tokens_to_ids(LANDMARK_TOKEN) == shards.vocab_size - 1
    return {"vocab_size": shards.vocab_size + (0 if reserved else 1)}


def _preset(name: str | None) -> Callable[..., DRTConfig]:
    from gcattn.models import PRESETS

    if name not in PRESETS:
        raise ValueError(f"model.preset must be one of {', '.join(PRESETS)}, got {name!r}.")
    return PRESETS[name]


def _checked(build: Callable[[], DRTConfig]) -> DRTConfig:
    """Say what DRTConfig refused, and in which section."""
    try:
        return build()
    except (ValueError, OSError) as error:
        raise ValueError(f"The section 'model' is refused: {error}") from error
