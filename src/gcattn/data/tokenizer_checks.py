"""Refuse shards that meet a model, or other shards, of another tokenizer."""

from __future__ import annotations

import logging
from pathlib import Path

from gcattn.data.token_shards import TokenShards
from gcattn.data.tokenizer_fingerprint import tokenizer_fingerprint
from gcattn.data.tokenizer_loading import load_tokenizer

_logger = logging.getLogger(__name__)


def check_tokenizer_of_model(shards: TokenShards, source: str) -> None:
    """Refuse shards that were made with another tokenizer than that of a model.

    A model without a tokenizer is let pass with a warning: nothing is known of its own.

    Args:
        shards: The data.
        source: Where the model was loaded from: a folder, or a name on the hub.

    Raises:
        ValueError: The tokenizers differ.
    """
    if Path(source).is_dir() and not (Path(source) / "tokenizer.json").is_file():
        _logger.warning(
            "The model %s has no tokenizer.json, so it is not known whether %s was made with its "
            "tokenizer.",
            source,
            shards.folder,
        )
        return
    if tokenizer_fingerprint(load_tokenizer(source)) != shards.tokenizer_fingerprint:
        raise ValueError(
            f"The data in {shards.folder} were made with another tokenizer "
            f"({shards.tokenizer_name}) than that of the model {source}; prepare them with: gcattn "
            f"data prepare … --tokenizer {source}."
        )


def check_same_tokenizer(first: TokenShards, second: TokenShards) -> None:
    """Refuse two folders of shards that were made with different tokenizers.

    Raises:
        ValueError: They were.
    """
    if first.tokenizer_fingerprint != second.tokenizer_fingerprint:
        raise ValueError(
            f"{first.folder} and {second.folder} were made with different tokenizers "
            f"({first.tokenizer_name} and {second.tokenizer_name}); prepare both with the same "
            "--tokenizer."
        )
