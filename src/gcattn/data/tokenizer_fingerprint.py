"""Whether two tokenizers are one: the check wherever shards meet a model or each other."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.data.tokenizer_loading import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gcattn.data.token_shards import TokenShards

# a token that tokenizers once kept for the model and that no text contains
LANDMARK = "<|landmark|>"
_logger = logging.getLogger(__name__)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a hash of everything that decides which ids a text gets.

    What stands around the ids of a text or is made of them (templates, padding, the decoder) is
    left out: it changes when a tokenizer is saved anew. So is the landmark's token, which no text
    contains.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model: dict[str, Any] = state["model"]
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {text: i for text, i in model["vocab"].items() if text != LANDMARK}
    added = sorted(
        (token["id"], token["content"])
        for token in state["added_tokens"]
        if token["content"] != LANDMARK
    )
    deciding = [state["normalizer"], state["pre_tokenizer"], model, added]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def num_text_ids(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return one more than the greatest id that a text can get."""
    return 1 + max(i for text, i in tokenizer.get_vocab().items() if text != LANDMARK)


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
