"""Forward kernel of sliding-window attention: online softmax over the keys inside the window.

Letters as in `tiles`. Logarithms have base 2: the logits carry a factor of log2(e).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcattn.ops.launch import Launch, Layout, allocator
from gcattn.ops.sliding_window.tiles import FORWARD, are_of_document, choose_tiles, key_tiles
from gcattn.ops.tiles import LOG2_E, LOWEST, add_product, load_rows, store_rows


@triton.jit
def _attend(
    q,  # [BLOCK_M, BLOCK_D]
    k_ptr,
    v_ptr,
    stride_kl,
    stride_vl,
    first_key,
    num_keys,
    visible,  # [BLOCK_M, BLOCK_N], read if MASKED
    highest,
    total,
    mixed,
    scale,
    MASKED: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Take one tile of keys into the running maximum, sum and mix of each row."""
    j = first_key + tl.arange(0, BLOCK_N)
    used = j < num_keys
    j = j.to(tl.int64)
    k = load_rows(k_ptr, j * stride_kl, used, MASKED, D, BLOCK_D)
    v = load_rows(v_ptr, j * stride_vl, used, MASKED, D, BLOCK_D)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2_E)
    if MASKED:
        scores = tl.where(visible, scores, float("-inf"))
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    attention = tl.exp2(scores - new_highest[:, None])
    fade = tl.exp2(highest - new_highest)
    total = total * fade + tl.sum(attention, 1)
    mixed = mixed * fade[:, None]
    mixed = add_product(mixed, attention.to(v.dtype), v)
    return new_highest, total, mixed


@triton.jit(do_not_specialize=["P", "W"])
def _forward_kernel(
    q_ptr,  # [B, L, H, D]
    k_ptr,  # [B, P + L, G, D]
    v_ptr,
    query_documents_ptr,  # [B, L] or None
    key_documents_ptr,  # [B, P + L] or None
    out_ptr,  # [B, L, H, D]
    lse_ptr,  # [B, H, L]
    q_strides,  # of B, L, H
    k_strides,  # of B, P + L, G
    v_strides,
    L,
    P,
    W,
    scale,
    G: tl.constexpr,
    J: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns one tile of query rows of one (batch, kv head)."""
    pid = tl.program_id(0)
    num_tiles = tl.cdiv(L * J, BLOCK_M)
    g = (pid % G).to(tl.int64)
    tile = (pid // G) % num_tiles
    b = (pid // G // num_tiles).to(tl.int64)
    first_row = tile * BLOCK_M
    row = first_row + tl.arange(0, BLOCK_M)
    used = row < L * J
    i = row // J
    column = P + i  # where the query stands among the keys
    i = i.to(tl.int64)
    h = g * J + row % J
    q_ptr += b * q_strides[0]
    q = load_rows(q_ptr, i * q_strides[1] + h * q_strides[2], used, True, D, BLOCK_D)
    k_ptr += b * k_strides[0] + g * k_strides[2]
    v_ptr += b * v_strides[0] + g * v_strides[2]

    last_row = tl.minimum(first_row + BLOCK_M, L * J) - 1
    first, last = P + first_row // J, P + last_row // J
    begin, full_begin, full_end = key_tiles(first, last, W, BLOCK_N)
    if query_documents_ptr is not None:
        query_documents_ptr += b * L
        key_documents_ptr += b * (P + L)
        query_document = tl.load(query_documents_ptr + i, mask=used, other=0)
        document = tl.load(query_documents_ptr + first_row // J)
        unlike = tl.sum(((query_document != document) & used).to(tl.int32), 0)
        plain = are_of_document(key_documents_ptr, full_begin, full_end, document, 1024)
        # a tile that two documents meet in is masked like one at the edge of the window
        full_end = tl.where(plain & (unlike == 0), full_end, full_begin)

    highest = tl.full([BLOCK_M], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for first_key in range(full_begin, full_end, BLOCK_N):
        highest, total, mixed = _attend(
            q, k_ptr, v_ptr, k_strides[1], v_strides[1], first_key, P + L, used,
            highest, total, mixed, scale, False, D, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    # the tiles before and after those, in one loop
    num_before = (full_begin - begin) // BLOCK_N
    num_behind = tl.cdiv(tl.maximum(last + 1 - full_end, 0), BLOCK_N)
    for t in range(0, num_before + num_behind):
        skipped = tl.where(t < num_before, 0, full_end - full_begin)
        first_key = begin + t * BLOCK_N + skipped
        j = first_key + tl.arange(0, BLOCK_N)
        distance = column[:, None] - j[None, :]
        visible = (distance >= 0) & (distance < W)
        if query_documents_ptr is not None:
            key_document = tl.load(key_documents_ptr + j, mask=j < P + L, other=0)
            visible = visible & (query_document[:, None] == key_document[None, :])
        highest, total, mixed = _attend(
            q, k_ptr, v_ptr, k_strides[1], v_strides[1], first_key, P + L, visible,
            highest, total, mixed, scale, True, D, BLOCK_N, BLOCK_D,
        )  # fmt: skip

    # a query that sees nothing gives zero; an infinite sum keeps it out of the backward pass
    is_blind = total == 0
    total = tl.where(is_blind, 1.0, total)
    mixed = mixed / total[:, None]
    lse = tl.where(is_blind, float("inf"), highest + tl.log2(total))
    tl.store(lse_ptr + (b * G * J + h) * L + i, lse, mask=used)
    store_rows(out_ptr, ((b * L + i) * G * J + h) * D, mixed, used, D, BLOCK_D)


def plan_forward(
    q: Layout,
    k: Layout,
    v: Layout,
    query_documents: Layout | None,
    key_documents: Layout | None,
    window_size: int,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Prepare the forward pass; q, k and v may have any strides but D's, the rest is contiguous.

    Returns:
        A function of q, k, v, query_documents and key_documents. It returns the output,
        [B, L, H, D], and, in base 2, the logarithm of each softmax's sum, [B, H, L].
    """
    B, L, H, D = q.shape
    T, G = k.shape[1], k.shape[2]
    J = H // G
    tiles = choose_tiles(FORWARD, L * J, k)
    launch = Launch(
        _forward_kernel,
        (B * G * triton.cdiv(L * J, tiles.block_m),),
        q.strides[:3],
        k.strides[:3],
        v.strides[:3],
        L,
        T - L,
        min(window_size, T),
        D**-0.5,
        G,
        J,
        D,
        tiles.block_m,
        tiles.block_n,
        tiles.block_d,
        **tiles.options(),
    )
    new_out, lse_shape = allocator(q, q.device), (B, H, L)
    is_empty = 0 in q.shape

    def run(*inputs: Any) -> tuple[Tensor, Tensor]:
        out = new_out(inputs[0])
        lse = inputs[0].new_empty(lse_shape, dtype=torch.float32)
        if not is_empty:
            launch(*inputs, out, lse)
        return out, lse

    return run
