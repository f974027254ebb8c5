"""Ready-made configurations, as functions: `drt_34m(num_retrieval_groups=2)`."""

from collections.abc import Callable
from typing import Any

from gcattn.models.configuration_drt import DRTConfig

# what begins to learn soonest (docs/training.md); the defaults of DRTConfig are the paper's
_LEARNS_SOONEST: dict[str, Any] = {
    "embedding_convolution_size": 4,
    "key_convolution_size": 2,
    "landmark_pooling": True,
    "landmark_overlap": 16,
    "softmax_off_by_one": False,
    "residual_wiring": "ordinary",
    # contents are compared from the first step; noise would drown that
    "retrieval_noise": "none",
}

# scores that tell chunks of 63 tokens apart from the start
_SHARP: dict[str, Any] = {"initial_score_scale": 16.0}

# one layer of each group reads: cheaper than all, and no loss was seen (docs/needle.md)
_SHALLOW: dict[str, Any] = {
    "num_lower_layers": 3,
    "num_upper_layers": 3,
    "num_encoder_layers": 2,
    "cross_attention_interval": 3,
}


def drt_tiny(**overrides: Any) -> DRTConfig:
    """Return a model that a CPU trains in minutes: 16-slot chunks, a 32-column window."""
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_attention_heads": 2,
        "num_lower_layers": 2,
        "num_upper_layers": 2,
        "num_encoder_layers": 2,
        "chunk_size": 16,
        "retrieval_top_k": 4,
        "window_size": 32,
        # chunks of 15 tokens are told apart by the landmark's own slot (results/recipes.jsonl)
        "landmark_pooling": False,
        "landmark_overlap": 0,
    }
    return DRTConfig(**(_LEARNS_SOONEST | sizes | overrides))


def drt_12m(**overrides: Any) -> DRTConfig:
    """Return a model that a CPU reads a million tokens with, trained in minutes on a GPU."""
    sizes: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_attention_heads": 4,
    }
    return DRTConfig(**(_LEARNS_SOONEST | _SHARP | _SHALLOW | sizes | overrides))


def drt_34m(**overrides: Any) -> DRTConfig:
    """Return a model that trains within minutes on one GPU."""
    sizes: dict[str, Any] = {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_attention_heads": 8,
    }
    return DRTConfig(**(_LEARNS_SOONEST | _SHARP | _SHALLOW | sizes | overrides))


def drt_128m(**overrides: Any) -> DRTConfig:
    """Return a model of the paper's size (appendix, pre-training), made to learn soonest."""
    sizes: dict[str, Any] = {"cross_attention_interval": 6}
    return DRTConfig(**(_LEARNS_SOONEST | _SHARP | sizes | overrides))


def paper_128m(**overrides: Any) -> DRTConfig:
    """Return the paper's model as it is described: all upper layers read, all maps random."""
    return DRTConfig(**({"cross_attention_init": "plain"} | overrides))


def drt_350m(**overrides: Any) -> DRTConfig:
    """Return one of the larger size of the paper's language modelling, made to learn soonest."""
    sizes: dict[str, Any] = {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_attention_heads": 16,
        "num_lower_layers": 11,
        "num_upper_layers": 11,
        "cross_attention_interval": 11,
    }
    return DRTConfig(**(_LEARNS_SOONEST | _SHARP | sizes | overrides))


PRESETS: dict[str, Callable[..., DRTConfig]] = {
    preset.__name__: preset
    for preset in (
        drt_tiny,
        drt_12m,
        drt_34m,
        drt_128m,
        drt_350m,
        paper_128m,
    )
}
