"""The number of bytes that a token encodes, so that tokenizers can be compared in bits per byte."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def token_byte_lengths(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Count the UTF-8 bytes of every token of a tokenizer.

    Special tokens encode no text. The counts of a byte-level tokenizer are exact; one with "▁"
    for a space counts the space that it puts before a text as well.

    Returns:
        Bytes by token id, int64 [V].

    Raises:
        ValueError: The tokenizer is neither byte-level nor one with "▁" for a space.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    decoders = set(_types(backend["decoder"]))
    if "ByteLevel" in decoders:
        count: Callable[[str], int] = len  # one character for each byte
    elif decoders & {"Metaspace", "ByteFallback"}:
        count = _count_with_spaces
    else:
        raise ValueError(
            "Bits per byte need a byte-level tokenizer or one with byte fallback, got one whose "
            f"decoder is {', '.join(sorted(decoders)) or 'missing'}."
        )
    added = tokenizer.added_tokens_decoder
    vocabulary = tokenizer.get_vocab()
    lengths = torch.zeros(max(vocabulary.values()) + 1, dtype=torch.int64)
    for token, token_id in vocabulary.items():
        if token_id not in added:
            lengths[token_id] = count(token)
        elif not added[token_id].special:
            lengths[token_id] = len(token.encode())
    return lengths


def _count_with_spaces(token: str) -> int:
    if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        return 1
    return len(token.replace("▁", " ").encode())


def _types(decoder: dict[str, Any] | None) -> Iterator[str]:
    """Yield the type of a decoder, or of each decoder in a sequence."""
    if decoder is not None:
        yield decoder["type"]
        for part in decoder.get("decoders", []):
            yield from _types(part)
