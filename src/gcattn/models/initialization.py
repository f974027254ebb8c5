"""How a DRT starts: the aligned start lets cross-attention match and copy from the first step.

With all maps at a standard deviation of 0.02 the signal through query · key and value → output is
too weak for retrieval to start learning; `docs/training.md` has the measurements.

Shapes: H query heads, G key/value heads, D head dim, E hidden size.
"""

import torch
from torch import nn
from transformers import initialization as init

from gcattn.nn.chunk_encoder import ChunkEncoder
from gcattn.nn.convolution import ColumnConvolution, SlotConvolution
from gcattn.nn.cross_attention import GroupedCrossAttention
from gcattn.nn.recurrent_layer import GATE_BIAS, RecurrentAttention
from gcattn.nn.retriever import Retriever

# standard deviation of the keys at the start, and of what is read relative to what was written
KEY_SCALE = 1.3
OUTPUT_SCALE = 0.5
# weight at the start of the columns before a column, relative to its own
NEIGHBOUR_SCALE = 0.15
# what layers add at the start, relative to the plain start
LAYER_SCALE = 0.1
# the maps that add it
QUIET = (
    "self_attention.o_proj.weight",
    "recurrent_attention.o_proj.weight",
    "mlp.down_proj.weight",
)


def align_embeddings(tokens: nn.Embedding, landmark: nn.Embedding) -> None:
    """Start with tokens that dominate the residual stream and landmarks that are empty.

    To match content the stream must hold the token, so embeddings start at a standard deviation of
    1 / sqrt(E), well above what the layers add to them. The landmark's embedding starts at zero: it
    would be common to all landmarks. Without it a landmark is what attention gathered from its
    neighbourhood, and the retriever compares contents from the first step.
    """
    init.normal_(tokens.weight, std=tokens.embedding_dim**-0.5)
    init.zeros_(landmark.weight)


def quiet_layers(model: nn.Module, initializer_range: float) -> None:
    """Start with layers that add little, so that the stream holds the tokens at any width.

    Embeddings have a root mean square of 1 / sqrt(E), but what a feed-forward block adds at the
    plain start does not shrink with the width: from E = 512 on it would outweigh them.
    """
    for name, weight in model.named_parameters():
        if name.endswith(QUIET) or ("chunk_encoder" in name and name.endswith(".o_proj.weight")):
            init.normal_(weight, std=LAYER_SCALE * initializer_range)


def align_retrievers(retrievers: list[Retriever], score_scale: float) -> None:
    """Start with scores of `score_scale` times the cosine, so that every chunk gets some weight.

    Scores of normed vectors grow with sqrt(E): a wide model would start with weights of 0 and 1 on
    chunks chosen by chance, and no gradient would reach the others.
    """
    for retriever in retrievers:
        weight = retriever.norm.weight
        init.constant_(weight, score_scale * weight.numel() ** -0.5)


def align_cross_attention(encoder: ChunkEncoder, modules: list[GroupedCrossAttention]) -> None:
    """Start cross-attention as content matching and copying.

    Queries use the map of the keys, so a token attends to slots with the same content. The map of
    the values is orthogonal and that of the output is its transpose, so what is read comes back as
    it was written. That is the last layer; the others start with a tenth of it: if each of them
    read in full, a layer would query with what the layer before it read, and find what follows the
    answer.

    Args:
        encoder: Holds the maps of the pool's keys and values, [G · D, E] each.
        modules: The cross-attention of every upper layer, with maps [H · D, E] and [E, H · D].
    """
    key_weight, value_weight = encoder.k_proj.weight, encoder.v_proj.weight
    # normed inputs have a mean square of 1, so keys get the standard deviation KEY_SCALE
    init.normal_(key_weight, std=KEY_SCALE * key_weight.shape[1] ** -0.5)
    init.orthogonal_(value_weight)
    if encoder.key_convolution is not None:
        # a key holds the token before its slot, so what is read is the token that followed
        weight = encoder.key_convolution.weight
        init.copy_(weight, _taps(weight, own=1.0, others=0.0).roll(1, 0))
    if encoder.landmark_pool is not None:
        init.zeros_(encoder.landmark_pool.score.weight)
    for module in modules:
        groups = module.q_proj.out_features // key_weight.shape[0]
        init.copy_(module.q_proj.weight, _repeat_heads(key_weight, module.head_dim, groups))
        back = _repeat_heads(value_weight, module.head_dim, groups).T / groups
        scale = OUTPUT_SCALE * (1 if module is modules[-1] else LAYER_SCALE)
        init.copy_(module.o_proj.weight, scale * back)


def initialize_module(module: nn.Module, initializer_range: float) -> None:
    """Give one module its random start."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        init.normal_(module.weight, std=initializer_range)
    elif isinstance(module, nn.RMSNorm):
        init.ones_(module.weight)
    elif isinstance(module, ColumnConvolution):
        init.copy_(module.weight, _taps(module.weight, own=1.0, others=NEIGHBOUR_SCALE))
    elif isinstance(module, RecurrentAttention):
        init.constant_(module.gate, GATE_BIAS)
    elif isinstance(module, SlotConvolution):
        # a key holds its own slot, until it is aligned
        init.copy_(module.weight, _taps(module.weight, own=1.0, others=0.0))


def _taps(weight: torch.Tensor, *, own: float, others: float) -> torch.Tensor:
    taps = torch.full_like(weight, others)
    taps[0] = own
    return taps


def _repeat_heads(weight: torch.Tensor, head_dim: int, groups: int) -> torch.Tensor:
    """Repeat each head's rows for the query heads of its group, [G · D, E] → [H · D, E]."""
    heads = weight.detach().unflatten(0, (-1, head_dim))
    return heads.repeat_interleave(groups, dim=0).flatten(0, 1)
