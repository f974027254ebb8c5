"""Both names of the cache argument: callers may use either, the installed transformers uses one.

Place in the data flow: arguments and outputs of models, and what `generate` keeps between calls.
"""

from dataclasses import fields
from typing import Any

from transformers.modeling_outputs import CausalLMOutputWithPast

from gcattn.memory.cache import DRTCache

# transformers 5.24 renamed "past_key_values" to "cache"; `generate` passes the cache by the name of
# its version, and finds it in the output only by that name
CACHE_NAME = next(
    field.name
    for field in fields(CausalLMOutputWithPast)
    if field.name in ("cache", "past_key_values")
)


def named_cache(cache: object) -> dict[str, Any]:
    """Return the keyword argument that hands a cache to a model or to its output."""
    return {CACHE_NAME: cache}


def given_cache(cache: DRTCache | None, past_key_values: DRTCache | None) -> DRTCache | None:
    """Return the cache that a caller passed by either name; None if there is none.

    Raises:
        ValueError: Both were passed, or one that is not a DRT's.
    """
    if cache is not None and past_key_values is not None:
        raise ValueError("cache and past_key_values are two names of one argument; pass one.")
    given = past_key_values if cache is None else cache
    if given is not None and not isinstance(given, DRTCache):
        raise ValueError(f"The cache must be a gcattn.DRTCache, got {type(given).__name__}.")
    return given
