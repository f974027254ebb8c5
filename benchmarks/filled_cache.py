"""A DRT cache that holds a context of any length without reading one: its chunks are random.

Shapes: B batch, N chunks, S slots per chunk, G key/value heads, D head dim, E hidden size.
"""

from dataclasses import replace

import torch

from gcattn.memory import EncodedChunks, MemoryTier
from gcattn.memory.cache import DRTCache
from gcattn.models import DRTForCausalLM
from gcattn.testing import random_tokens

# chunks made at a time
FILL_CHUNKS = 512


@torch.inference_mode()
def filled_cache(
    model: DRTForCausalLM, tier: MemoryTier, batch: int, length: int, seed: int
) -> DRTCache:
    """Return a cache behind about `length` tokens, whole chunks, ready for the next token.

    The first and the last chunk are read by the model, so that the windows are alive and the last
    landmark has retrieved from all the others: the next token has K chunks to read.
    """
    config, weight = model.config, model.lm_head.weight
    tokens, device = config.chunk_size - 1, weight.device
    num_chunks = length // tokens
    if num_chunks < 2:
        raise ValueError(f"A context must hold two chunks of {tokens} tokens, got {length} tokens.")
    cache = DRTCache(config, tier)
    ends = random_tokens(config, batch, 2 * tokens, seed).to(device)
    model(ends[:, :tokens], past_key_values=cache, logits_to_keep=1)
    generator = torch.Generator(device).manual_seed(seed)
    pool = (config.chunk_size, config.num_key_value_heads, config.head_dim)
    for start in range(1, num_chunks - 1, FILL_CHUNKS):
        count = min(FILL_CHUNKS, num_chunks - 1 - start)
        landmarks, keys, values = (
            torch.randn(batch, count, *shape, generator=generator, device=device).to(weight)
            for shape in ((config.hidden_size,), pool, pool)
        )
        full = torch.full((batch, count), tokens, device=device)
        chunks = EncodedChunks(landmarks, torch.zeros_like(full), keys, values, full)
        cache.memory.append(chunks, torch.full((batch,), count))
    state = cache.position.state
    assert state is not None  # the first chunk made it
    at = torch.full((batch,), num_chunks - 1)
    state = replace(state, num_chunks=at, next_position=at * config.chunk_size)
    cache.position.move(state)
    model(ends[:, tokens:], past_key_values=cache, logits_to_keep=1)
    return cache
