"""The unigram entropy of a corpus: a model that learned from context must beat it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gcattn.data.token_shards import TokenShards


def unigram_entropy(shards: TokenShards) -> float:
    """Return the entropy of the corpus's own token frequencies, in nats per token.

    No model that ignores context predicts this corpus better.
    """
    counts = np.zeros(shards.vocab_size, dtype=np.int64)
    for number in range(shards.num_documents):
        counts += np.bincount(shards.document(number), minlength=shards.vocab_size)
    frequencies = counts[counts > 0] / counts.sum()
    return float(-(frequencies * np.log(frequencies)).sum())
