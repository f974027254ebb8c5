"""The sizes that must agree between the model that filled a cache and the one that continues."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

SIZES = (
    "vocab_size",
    "hidden_size",
    "num_key_value_heads",
    "head_dim",
    "num_lower_layers",
    "num_upper_layers",
    "num_retrieval_groups",
    "chunk_size",
    "window_size",
    "self_attention",
    "num_recurrent_states",
    "retrieval_serves",
    "embedding_convolution_size",
    "key_convolution_size",
    "landmark_overlap",
)
# defaults for fields that older memories lack
ADDED_SIZES = {
    "self_attention": "window",
    "num_recurrent_states": 0,
    "embedding_convolution_size": 1,
    "key_convolution_size": 1,
    "landmark_overlap": 0,
}


def check_same_sizes(made_for: "DRTConfig", config: "DRTConfig") -> None:
    """Refuse a cache that was made for a model of other sizes.

    Raises:
        ValueError: A size differs.
    """
    if made_for is config:
        return
    for name in SIZES:
        theirs, ours = getattr(made_for, name), getattr(config, name)
        if theirs != ours:
            raise ValueError(
                f"The cache was made for a model with {name} = {theirs}, this one has {ours}; "
                "make one with DRTCache(model.config)."
            )
