"""The model that a training configuration asks for, checked against the data."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.train.config import ModelSection

if TYPE_CHECKING:
    from gcattn.data.token_shards import TokenShards
    from gcattn.models import DRTConfig, DRTForCausalLM

# tokens looked at for an id beyond the vocabulary before training starts: half a second of reading
SCANNED_TOKENS = 2**28


def config_fields() -> dict[str, Any]:
    """Return the fields of DRTConfig that a configuration may set, with their types."""
    from gcattn.models import DRTConfig

    return inspect.get_annotations(DRTConfig)


def build_model(section: ModelSection, shards: TokenShards) -> DRTForCausalLM:
    """Make or load the model, in float32.

    Args:
        section: What to build.
        shards: The training data; its vocabulary is the default for `vocab_size`.

    Raises:
        FileNotFoundError: There is no model at `from`.
        ValueError: A value is refused by DRTConfig, the saved model cannot be read, is damaged or
            does not fit its configuration, or the vocabulary or the tokenizer of the data does not
            fit.
    """
    from gcattn.data.tokenizer_checks import check_tokenizer_of_model
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.models import DRTConfig, DRTForCausalLM
    from gcattn.models.saved_model import check_saved_model

    source = section.from_
    if source is None:
        overrides = {"vocab_size": shards.num_text_ids} | section.overrides
        config = _checked(lambda: _preset(section.preset)(**overrides))
        _check_fits_memory(config)
        check_vocabulary(config, shards)
        return DRTForCausalLM(config)
    if not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(
            f"model.from: {source} holds no saved model (it has no config.json)."
        )
    config = _checked(lambda: DRTConfig.from_pretrained(source, **section.overrides))
    check_tokenizer_of_model(shards, source)
    _check_fits_memory(config)
    check_vocabulary(config, shards)
    check_saved_model(source, hash_up_to=None)
    try:
        model = load_causal_lm(source, device="cpu", dtype="float32", changes=section.overrides)
    except ValueError as error:
        raise ValueError(f"model.from: {error}") from error
    if not isinstance(model, DRTForCausalLM):
        raise ValueError(f"model.from: {source} holds a {type(model).__name__}, expected a DRT.")
    return model


def check_vocabulary(config: DRTConfig, shards: TokenShards) -> None:
    """Refuse data whose token ids the model cannot take.

    Raises:
        ValueError: The vocabulary is too large, or the data hold an id beyond it.
    """
    if shards.num_text_ids > config.vocab_size:
        raise ValueError(
            f"The data in {shards.folder} were made with a tokenizer of {shards.num_text_ids} "
            f"tokens ({shards.tokenizer_name}), but model.vocab_size is {config.vocab_size}; "
            "raise it or prepare the data with the model's tokenizer."
        )
    num_ids = min(shards.vocab_size, config.vocab_size)
    step = 2**22
    for start in range(0, min(shards.num_tokens, SCANNED_TOKENS), step):
        largest = shards.tokens(start, min(start + step, shards.num_tokens)).max()
        if largest >= num_ids:
            raise ValueError(
                f"The data in {shards.folder} hold token {largest}, but their tokenizer has "
                f"{num_ids} tokens; prepare the data again."
            )


def _check_fits_memory(config: DRTConfig) -> None:
    """Refuse a model that this machine cannot hold, before it tries for minutes."""
    num_bytes = 4 * config.count_parameters()
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > available:
        raise ValueError(
            f"The section 'model' makes {num_bytes / 4:.3g} parameters, {num_bytes / 1e9:,.0f} GB "
            f"in float32, but this machine has {available / 1e9:,.0f} GB of memory."
        )


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
