"""Operators of other projects: flex_attention, and NSA and MoBA of flash-linear-attention.

NSA and MoBA choose blocks for each query rather than each chunk; they stand for what sparse
attention costs elsewhere and compute something else.

Shapes: B batch, L = C · S columns, C chunks, S slots per chunk, H query heads, G key/value heads,
D head dim, K retrieved chunks.
"""

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestant import (
    Contestant,
    PreparedCall,
    UnavailableError,
    by_columns,
    heads_first,
    leaf,
)
from benchmarks.costs import window_flops
from benchmarks.inputs import OperatorInputs

# the kernels of NSA put the query heads of a key/value head in one tile
NSA_LEAST_RATIO = 16


def peers() -> list[Contestant]:
    """Return the contestants of other projects."""
    return [
        Contestant(
            "flex sliding window", "sliding_window", _flex_window, window_flops, is_foreign=True
        ),
        Contestant("NSA (fla)", "block_sparse", _native_sparse_attention, is_foreign=True),
        Contestant("MoBA (fla)", "block_sparse", _mixture_of_block_attention, is_foreign=True),
    ]


def nsa_heads(heads: int) -> int:
    """Return the query heads that NSA is run with, over one key/value head: a power of two."""
    return max(NSA_LEAST_RATIO, 1 << (heads - 1).bit_length())


def _flex_window(inputs: OperatorInputs) -> PreparedCall:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    device, L, window = inputs.q.device, inputs.shape.length, inputs.shape.window
    if device.type != "cuda":
        raise UnavailableError("needs a GPU: its backward pass exists nowhere else")

    def is_visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < window)

    # compiled code of earlier shapes would count against the limit of recompilations
    torch.compiler.reset()
    # compiled too: without that it writes an [L, L] mask first
    mask = create_block_mask(is_visible, None, None, L, L, device=device, _compile=True)
    attend: Any = torch.compile(flex_attention, dynamic=False)
    leaves = {name: heads_first(getattr(inputs, name)) for name in ("q", "k", "v")}
    q, k, v = leaves.values()
    shares_keys = q.shape[1] != k.shape[1]
    return PreparedCall(
        lambda: attend(q, k, v, block_mask=mask, enable_gqa=shares_keys), leaves, by_columns
    )


def _native_sparse_attention(inputs: OperatorInputs) -> PreparedCall:
    """Selected blocks only: the K that our chunk retrieved, the same for each of its queries."""
    nsa = _imported("fla.ops.nsa")
    _needs_gpu(inputs)
    shape = inputs.shape
    generator = torch.Generator(inputs.q.device).manual_seed(0)

    def normal(heads: int) -> Tensor:
        sizes = (shape.batch, shape.length, heads, shape.head_dim)
        x = torch.randn(sizes, generator=generator, device=inputs.q.device)
        return leaf(x.to(inputs.q.dtype))

    q, k, v = normal(nsa_heads(shape.heads)), normal(1), normal(1)
    indices = inputs.chunk_indices.repeat_interleave(shape.chunk_size, dim=1)  # [B, L, K]
    # a block is never empty there: the query's own stands in
    own = torch.arange(shape.length, device=indices.device)[None, :, None] // shape.chunk_size
    indices = torch.where(indices < 0, own, indices).unsqueeze(2)  # [B, L, 1, K]
    return PreparedCall(
        lambda: nsa.parallel_nsa(
            q,
            k,
            v,
            block_indices=indices,
            block_counts=shape.top_k,
            block_size=shape.chunk_size,
        ),
        {"q": q, "k": k, "v": v},
        lambda x: x,
    )


def _mixture_of_block_attention(inputs: OperatorInputs) -> PreparedCall:
    """Every query chooses K blocks besides its own; rows are packed into one."""
    moba = _imported("fla.ops.moba")
    _imported("flash_attn")
    _needs_gpu(inputs)
    shape = inputs.shape
    if shape.heads != shape.kv_heads:
        raise UnavailableError("takes as many key/value heads as query heads only")
    leaves = {name: leaf(getattr(inputs, name).flatten(0, 2)[None]) for name in ("q", "k", "v")}
    q, k, v = leaves.values()
    ends = torch.arange(shape.batch + 1, dtype=torch.int32, device=q.device) * shape.length
    return PreparedCall(
        lambda: moba.parallel_moba(
            q, k, v, ends, shape.length, chunk_size=shape.chunk_size, topk=shape.top_k + 1
        ),
        leaves,
        lambda x: x.unflatten(1, (shape.batch, shape.length)).squeeze(0),
    )


def _needs_gpu(inputs: OperatorInputs) -> None:
    if not inputs.q.is_cuda:
        raise UnavailableError("needs a GPU")


def _imported(module: str) -> Any:
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise UnavailableError("not installed")
    return importlib.import_module(module)
