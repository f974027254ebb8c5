"""What makes two tokenizers the same: a hash of all that decides the ids of a text."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# a token that tokenizers once kept for the model and that no text contains
LANDMARK = "<|landmark|>"


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
