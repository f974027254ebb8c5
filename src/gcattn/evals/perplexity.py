"""Perplexity by context length: documents of at least a length, their losses by position.

Every document is read once, at the greatest length it serves: in a causal model the losses of its
first tokens are those of any shorter reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gcattn.data.tokenizer_checks import check_vocabulary
from gcattn.evals.length_result import LengthResult, bucket_means, summarize
from gcattn.evals.token_bytes import token_byte_lengths
from gcattn.evals.token_losses import DEFAULT_SEGMENT_LENGTH, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcattn.data.token_shards import TokenShards


def evaluate_perplexity(
    model: PreTrainedModel,
    shards: TokenShards,
    lengths: Sequence[int],
    *,
    segment_length: int = DEFAULT_SEGMENT_LENGTH,
    max_documents: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[LengthResult]:
    """Measure how well a model predicts documents, by context length.

    Args:
        model: Any causal language model of transformers, in evaluation mode.
        shards: The documents, made with the model's tokenizer.
        lengths: Context lengths in tokens; each is measured on the first tokens of documents that
            have so many.
        segment_length: Tokens read by one call of the model; bounds memory.
        max_documents: Maximum documents per length; the first ones are used.
        on_progress: Called with the tokens read so far and in total.

    Returns:
        One result for each length.

    Raises:
        ValueError: No document is as long as a length, the data have ids that the model does not
            know, or a loss is not finite.
    """
    check_vocabulary(shards, model.config.get_text_config().vocab_size)
    served = choose_documents(shards, lengths, max_documents)
    token_bytes = token_byte_lengths(shards.tokenizer)
    total = sum(max(chosen) - 1 for chosen in served.values())
    done = 0

    def on_tokens(num_tokens: int) -> None:
        nonlocal done
        done += num_tokens
        if on_progress is not None:
            on_progress(done, total)

    losses: dict[int, list[Tensor]] = {length: [] for length in lengths}
    bits_per_byte: dict[int, list[float]] = {length: [] for length in lengths}
    for number, chosen in served.items():
        document = torch.from_numpy(shards.document(number)[: max(chosen)].astype("int64"))
        read = token_losses(model, document, segment_length=segment_length, on_tokens=on_tokens)
        if not bool(read.isfinite().all()):
            raise ValueError("The model gives losses that are not finite; its weights are damaged.")
        for length in chosen:
            part = read[: length - 1].double()
            num_bytes = max(1, int(token_bytes[document[1:length]].sum()))
            losses[length].append(bucket_means(part))
            bits_per_byte[length].append(float(part.sum()) / math.log(2) / num_bytes)
    return [summarize(length, losses[length], bits_per_byte[length]) for length in lengths]


def choose_documents(
    shards: TokenShards, lengths: Sequence[int], max_documents: int | None
) -> dict[int, list[int]]:
    """Choose the documents to read, and the lengths that each one counts for.

    Returns:
        Lengths by document number.
    """
    available = (np.diff(shards.document_starts) - 1).tolist()  # without the end-of-text token
    served: dict[int, list[int]] = {}
    for length in lengths:
        fitting = [number for number, tokens in enumerate(available) if tokens >= length]
        if not fitting:
            raise ValueError(
                f"No document in {shards.folder} has {length} tokens, the longest has "
                f"{max(available, default=0)}; ask for shorter lengths or bring longer documents."
            )
        for number in fitting[:max_documents]:
            served.setdefault(number, []).append(length)
    return served
