"""The model that a training configuration asks for, checked against the data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gcattn.train.config import ModelSection

if TYPE_CHECKING:
    from gcattn.data.token_shards import TokenShards
    from gcattn.models import DRTConfig, DRTForCausalLM


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
    from gcattn.data.tokenizer_checks import check_tokenizer_of_model, check_vocabulary
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.models import DRTConfig, DRTForCausalLM
    from gcattn.models.baselines import attach_text_encoder
    from gcattn.models.saved_model import check_saved_model

    source = section.from_
    if source is None:
        overrides = {"vocab_size": shards.num_text_ids} | section.overrides
        config = _checked(lambda: _preset(section.preset)(**overrides))
        _check_fits_memory(config)
        check_vocabulary(shards, config.vocab_size)
        made = DRTForCausalLM(config)
        if config.retrieval_method == "fixed":
            attach_text_encoder(made, shards.tokenizer)
        return made
    if not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(
            f"model.from: {source} holds no saved model (it has no config.json)."
        )
    config = _checked(lambda: DRTConfig.from_pretrained(source, **section.overrides))
    check_tokenizer_of_model(shards, source)
    _check_fits_memory(config)
    check_vocabulary(shards, config.vocab_size)
    check_saved_model(source, hash_up_to=None)
    try:
        model = load_causal_lm(source, device="cpu", dtype="float32", changes=section.overrides)
    except ValueError as error:
        raise ValueError(f"model.from: {error}") from error
    if not isinstance(model, DRTForCausalLM):
        raise ValueError(f"model.from: {source} holds a {type(model).__name__}, expected a DRT.")
    return model


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
