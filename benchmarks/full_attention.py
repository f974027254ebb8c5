"""The peer of whole models: a Transformer with full attention of the same sizes, by SDPA.

It is transformers' Llama with the DRT's hidden size, heads, feed-forward width and decoder layers.
For decoding its cache is made at its full length beforehand and written in place, so that a step
costs what attention over it costs and no copies. Compiled, with a cache whose shapes never change,
it decodes as transformers recommends where speed matters.

Shapes: B batch, P cached tokens, G key/value heads, D head dim.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, StaticCache
from transformers.models.llama import LlamaConfig, LlamaForCausalLM

from gcattn.models import DRTConfig


def full_attention_model(
    config: DRTConfig, device: torch.device, dtype: torch.dtype
) -> LlamaForCausalLM:
    """Build an untrained full-attention Transformer of the decoder's sizes."""
    llama = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        tie_word_embeddings=config.tie_word_embeddings,
        max_position_embeddings=2**24,
    )
    # a wrapper of transformers hides its type
    model: Any = LlamaForCausalLM._from_config(llama, attn_implementation="sdpa")
    return model.eval().to(device=device, dtype=dtype)


def filled_full_cache(model: LlamaForCausalLM, batch: int, length: int, room: int) -> Cache:
    """Return a cache that holds `length` random tokens, with room for `room` more."""
    config: Any = model.config
    sizes = (batch, config.num_key_value_heads, length + room, config.head_dim)
    layers: list[Any] = []
    for _ in range(config.num_hidden_layers):
        keys, values = (
            torch.randn(sizes, device=model.device, dtype=model.dtype) for _ in range(2)
        )
        layers.append(_RoomyLayer(keys, values, length))
    return Cache(layers=layers)


def compile_decoding(model: LlamaForCausalLM) -> None:
    """Let a model's calls run as one compiled graph, on a GPU replayed as a CUDA graph."""
    mode = "reduce-overhead" if model.device.type == "cuda" else "default"
    hidden: Any = model
    hidden.forward = torch.compile(model.forward, mode=mode, fullgraph=True)


def filled_static_cache(model: LlamaForCausalLM, batch: int, length: int, room: int) -> StaticCache:
    """Return a cache of fixed shapes that holds `length` random tokens and has room for `room`."""
    config: Any = model.config
    cache = StaticCache(config, max_cache_len=length + room)
    like = torch.zeros(
        (batch, config.num_key_value_heads, 1, config.head_dim),
        device=model.device,
        dtype=model.dtype,
    )
    for layer in cache.layers:
        held: Any = layer
        held.lazy_initialization(like, like)
        for x in (held.keys, held.values):
            x[:, :, :length].normal_()
        held.cumulative_length.fill_(length)
    return cache


class _RoomyLayer(DynamicLayer):
    """A layer's keys and values [B, G, P + room, D], written in place behind the first P."""

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._all_keys, self._all_values = keys, values
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self.keys, self.values = self._all_keys[:, :, :end], self._all_values[:, :, :end]
        return self.keys, self.values
