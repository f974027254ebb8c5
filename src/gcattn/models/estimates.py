"""What a configuration costs: parameters, floating-point operations and bytes, without building it.

Shapes: S slots per chunk, K retrieved chunks, W window, E hidden size.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


def count_parameters(config: "DRTConfig", *, embeddings: bool) -> int:
    """Return the exact number of parameters of `DRTForCausalLM`."""
    E = config.hidden_size
    matrices = sum(_matrix_sizes(config).values())
    norms = E * (2 * config.num_hidden_layers + 1)  # two in each decoder layer, one at the end
    if config.retrieval_method != "none":
        norms += E * (config.num_reading_layers + config.num_retrieval_groups)
        norms += E * (2 * config.num_encoder_layers + 2 + config.landmark_pooling)
    if config.num_recurrent_states:
        matrices += sum(_recurrent_sizes(config))
        norms += E * (2 + 2 * config.num_recurrent_states)  # a norm, the gate, starts and ids
    convolutions = E * sum(taps for taps in _taps(config) if taps > 1)
    # the landmark's embedding is outside the table, and the head has none
    rows = (1 if config.tie_word_embeddings else 2) * config.vocab_size + 1
    return matrices + norms + convolutions + (rows * E if embeddings else 0)


def flops_per_token(config: "DRTConfig", *, training: bool) -> int:
    """Return floating-point operations per token of a long text, output layer included."""
    S, query_size = config.chunk_size, config.num_attention_heads * config.head_dim
    forward = 2 * (sum(_matrix_sizes(config).values()) + config.vocab_size * config.hidden_size)
    # attention: scores and mixing, two operations per query value and key
    forward += 4 * query_size * config.window_size * config.num_hidden_layers
    if n := config.num_recurrent_states:
        of_columns, of_states = _recurrent_sizes(config)
        # states are updated once in a chunk, from themselves and its slots; every column reads them
        forward += 2 * (of_columns + of_states * n // S) + 4 * query_size * (n + n * (n + S) // S)
    if config.retrieval_method != "none":
        forward += 4 * query_size * S * config.num_encoder_layers
        forward += 4 * query_size * S * config.retrieval_top_k * config.num_reading_layers
    forward = forward * S // (S - 1)  # the landmark adds a column to every S - 1 tokens
    return 3 * forward if training else forward


def memory_bytes_per_token(config: "DRTConfig", bytes_per_value: int) -> dict[str, float]:
    """Return bytes of chunk memory per token, {"landmarks": …, "keys_values": …}."""
    tokens = config.chunk_size - 1
    pool = 2 * config.chunk_size * config.num_key_value_heads * config.head_dim
    return {
        "landmarks": config.hidden_size * bytes_per_value / tokens,
        "keys_values": pool * bytes_per_value / tokens,
    }


def _taps(config: "DRTConfig") -> tuple[int, int]:
    keys = 1 if config.retrieval_method == "none" else config.key_convolution_size
    return config.embedding_convolution_size, keys


def _recurrent_sizes(config: "DRTConfig") -> tuple[int, int]:
    """Parameters of the recurrent layer's own maps of columns, and of states."""
    E = config.hidden_size
    query_size = config.num_attention_heads * config.head_dim
    key_size = config.num_key_value_heads * config.head_dim
    return 2 * E * query_size, 4 * E * query_size + 2 * E * key_size


def _matrix_sizes(config: "DRTConfig") -> dict[str, int]:
    """Parameters of the linear maps by part; each costs two operations per column and parameter."""
    E = config.hidden_size
    query_size = config.num_attention_heads * config.head_dim
    key_size = config.num_key_value_heads * config.head_dim
    mlp = 3 * E * config.intermediate_size
    sizes = {"decoder": config.num_hidden_layers * (2 * E * query_size + 2 * E * key_size + mlp)}
    if config.retrieval_method != "none":
        sizes["cross_attention"] = config.num_reading_layers * 2 * E * query_size
        sizes["encoder"] = config.num_encoder_layers * (4 * E * query_size + mlp)
        sizes["pool"] = 2 * E * key_size
        sizes["landmark_pool"] = E * config.num_attention_heads if config.landmark_pooling else 0
    return sizes
