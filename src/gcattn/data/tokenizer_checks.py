"""Refuse shards that meet a model, or other shards, of another tokenizer."""

from __future__ import annotations

import logging
from pathlib import Path

from gcattn.data.token_shards import SCANNED_TOKENS, TokenShards
from gcattn.data.tokenizer_fingerprint import tokenizer_fingerprint
from gcattn.data.tokenizer_loading import load_tokenizer

_SCAN_STEP = 2**22
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


def check_vocabulary(shards: TokenShards, vocab_size: int) -> None:
    """Refuse data with token ids that a model of so many does not know.

    The first `SCANNED_TOKENS` ids are read, which takes half a second at most.

    Raises:
        ValueError: The tokenizer has more tokens, or the data hold an id beyond it.
    """
    if shards.num_text_ids > vocab_size:
        raise ValueError(
            f"The data in {shards.folder} were made with a tokenizer of {shards.num_text_ids} "
            f"tokens ({shards.tokenizer_name}), but the model's vocab_size is {vocab_size}; "
            "prepare the data with the model's tokenizer, or make a model with a larger vocabulary."
        )
    num_ids = min(shards.vocab_size, vocab_size)
    for start in range(0, min(shards.num_tokens, SCANNED_TOKENS), _SCAN_STEP):
        largest = shards.tokens(start, min(start + _SCAN_STEP, shards.num_tokens)).max()
        if largest >= num_ids:
            raise ValueError(
                f"The data in {shards.folder} hold token {largest}, but their tokenizer has "
                f"{num_ids} tokens; prepare the data again."
            )
