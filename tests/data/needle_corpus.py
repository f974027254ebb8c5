"""A haystack whose text looks like text: some tokens are common, most are rare."""

import numpy as np

from gcattn.data import TokenShardWriter, load_tokenizer


def write_haystack(folder, num_tokens=20_000, seed=0):
    tokenizer = load_tokenizer()
    draw = np.random.default_rng(seed)
    with TokenShardWriter(folder, tokenizer, "test", shard_tokens=7_000) as writer:
        while writer.num_tokens < num_tokens:
            length = int(draw.integers(50, 900))
            ids = 2 + draw.zipf(1.2, length) % (len(tokenizer) - 3)
            writer.append(ids, 3 * length)
    return folder
