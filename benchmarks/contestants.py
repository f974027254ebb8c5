"""Who takes part: ours, and what users would run instead.

Shapes: B batch, L = C · S columns, C chunks, S slots per chunk, H query heads, G key/value heads,
D head dim, K retrieved chunks.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.contestant import (
    Contestant,
    PreparedCall,
    by_columns,
    heads_first,
    leaf,
)
from benchmarks.costs import cross_attention_flops, full_attention_flops, window_flops
from benchmarks.inputs import OperatorInputs
from benchmarks.peers import peers
from gcattn.ops import grouped_cross_attention, sliding_window_attention
from gcattn.ops.grouped_cross_attention.api import Mixing
from gcattn.ops.implementation import Impl

# rows that one call of SDPA takes: the second dimension of a CUDA grid
MAX_ROWS = 65_535


def contestants() -> list[Contestant]:
    """Return everyone, ours first."""
    gca, window = cross_attention_flops, window_flops
    return [
        Contestant("gcattn", "grouped_cross_attention", ours("auto"), gca),
        Contestant(
            "gcattn joint", "grouped_cross_attention", ours("auto", "joint"), gca, mixing="joint"
        ),
        Contestant("gcattn reference", "grouped_cross_attention", ours("reference"), gca),
        Contestant("gather + SDPA", "grouped_cross_attention", _gather_and_sdpa, gca),
        Contestant("SDPA full causal", "full_attention", _full_attention, full_attention_flops),
        Contestant("gcattn sliding window", "sliding_window", _our_window, window),
        *peers(),
    ]


def _chunks_by_columns(x: Tensor) -> Tensor:
    return x.flatten(1, 2)


def ours(impl: Impl, mixing: Mixing = "separate") -> Callable[[OperatorInputs], PreparedCall]:
    """Return how our operator is prepared with the given implementation and way to mix chunks."""

    def prepare(inputs: OperatorInputs) -> PreparedCall:
        leaves = _cross_attention_leaves(inputs)
        q, k, v, weights = leaves.values()
        return PreparedCall(
            lambda: grouped_cross_attention(
                q, k, v, inputs.chunk_indices, weights, mixing=mixing, impl=impl
            ),
            leaves,
            _chunks_by_columns,
        )

    return prepare


def _gather_and_sdpa(inputs: OperatorInputs) -> PreparedCall:
    """The usual way: copy the chunks that each chunk retrieved, attend to each, mix."""
    leaves = _cross_attention_leaves(inputs)
    q, k, v, weights = leaves.values()
    indices = inputs.chunk_indices
    B, C, K = indices.shape
    rows = torch.arange(B, device=indices.device)[:, None, None]
    read = indices.clamp_min(0)

    def run() -> Tensor:
        keys, values = (
            x[rows, read].flatten(0, 2).transpose(1, 2) for x in (k, v)
        )  # [B·C·K, G, S, D]
        queries = q.unsqueeze(2).expand(-1, -1, K, -1, -1, -1)
        queries = queries.flatten(0, 2).transpose(1, 2)  # [B·C·K, H, S, D]
        read_out = _attend_in_pieces(queries, keys, values)
        read_out = read_out.unflatten(0, (B, C, K))  # [B, C, K, H, S, D]
        filled = torch.where(indices < 0, 0, weights).to(q.dtype)
        return torch.einsum("bckhsd,bck->bcshd", read_out, filled)

    return PreparedCall(run, leaves, _chunks_by_columns)


def _attend_in_pieces(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend row by row, in as few calls as a GPU's grid allows; long rows make many."""
    pieces = -(-len(queries) // MAX_ROWS)
    parts = [
        F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
        for q, k, v in zip(*(x.chunk(pieces) for x in (queries, keys, values)), strict=True)
    ]
    return parts[0] if pieces == 1 else torch.cat(parts)


def _cross_attention_leaves(inputs: OperatorInputs) -> dict[str, Tensor]:
    return {name: leaf(getattr(inputs, name)) for name in ("q", "k", "v", "chunk_weights")}


def _full_attention(inputs: OperatorInputs) -> PreparedCall:
    leaves = {name: heads_first(getattr(inputs, name)) for name in ("q", "k", "v")}
    q, k, v = leaves.values()
    shares_keys = q.shape[1] != k.shape[1]
    return PreparedCall(
        lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shares_keys),
        leaves,
        by_columns,
    )


def _our_window(inputs: OperatorInputs) -> PreparedCall:
    leaves = {name: leaf(getattr(inputs, name).flatten(1, 2)) for name in ("q", "k", "v")}
    q, k, v = leaves.values()
    window = inputs.shape.window
    return PreparedCall(
        lambda: sliding_window_attention(q, k, v, window_size=window), leaves, lambda x: x
    )
