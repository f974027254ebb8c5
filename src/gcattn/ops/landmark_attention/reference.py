"""Landmark Attention in plain PyTorch: any columns, any device, any dtype.

Shapes: B batch, L query columns, P cached columns before them, H query heads, G key/value heads,
D head dim, N blocks.
"""

import torch
from torch import Tensor

# queries scored at once: bounds the scores in memory at [B, H, 256, P + L]
QUERY_TILE = 256


def landmark_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_is_landmark: Tensor,
    key_documents: Tensor | None,
    top_k: int | None,
    scale: float,
) -> Tensor:
    """Attend tile by tile; arguments as in `api`, `key_is_landmark` [B, P + L] always given."""
    L, H = q.shape[1:3]
    past = k.shape[1] - L
    # a landmark closes its block: blocks are counted by the landmarks before a column
    block = key_is_landmark.cumsum(1) - key_is_landmark.long()  # [B, P + L]
    k, v = (x.repeat_interleave(H // x.shape[2], dim=2) for x in (k, v))
    tiles = [
        _attend(
            q[:, start : start + QUERY_TILE],
            k,
            v,
            torch.arange(past + start, past + min(start + QUERY_TILE, L), device=q.device),
            block,
            key_is_landmark,
            key_documents,
            top_k,
            scale,
        )
        for start in range(0, L, QUERY_TILE)
    ]
    return torch.cat(tiles, dim=1)


def _attend(
    q: Tensor,  # [B, l, H, D]
    k: Tensor,  # [B, P + L, H, D]
    v: Tensor,
    column: Tensor,  # [l], where each query stands among the keys
    block: Tensor,  # [B, P + L]
    is_landmark: Tensor,  # bool [B, P + L]
    documents: Tensor | None,  # [B, P + L]
    top_k: int | None,
    scale: float,
) -> Tensor:
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = torch.einsum("blhd,bnhd->bhln", q.to(wide), k.to(wide)) * scale  # n: keys
    order = torch.arange(k.shape[1], device=q.device)
    seen = (order <= column[:, None]).expand(len(q), -1, -1)  # [B, l, P + L]
    if documents is not None:
        seen = seen & (documents[:, None] == documents[:, column].unsqueeze(-1))
    own = block[:, None] == block[:, column].unsqueeze(-1)
    is_landmark = is_landmark[:, None]
    # what competes in the outer softmax: tokens of the own block, landmarks of those before
    gates = seen & is_landmark & ~own
    own_tokens = seen & own & ~is_landmark
    outer = scores.masked_fill(~(gates | own_tokens).unsqueeze(1), -torch.inf)
    if top_k is not None:
        outer = _keep_best(outer, gates, top_k)
    # a query that sees nothing (an unused column) gives zero
    outer = outer.softmax(-1).nan_to_num(0.0)
    tokens = scores.masked_fill(~(seen & ~own & ~is_landmark).unsqueeze(1), -torch.inf)
    gate = _per_block(outer.masked_fill(~gates.unsqueeze(1), 0), block, "sum")
    inner = _softmax_within(tokens, block) * gate.gather(-1, _index(block, tokens))
    weights = outer.masked_fill(~own_tokens.unsqueeze(1), 0) + inner
    return torch.einsum("bhln,bnhd->blhd", weights.to(v.dtype), v)


def _keep_best(outer: Tensor, gates: Tensor, top_k: int) -> Tensor:
    """Shut out all but the `top_k` best landmarks of each query and head."""
    scores = outer.masked_fill(~gates.unsqueeze(1), -torch.inf)
    if top_k >= scores.shape[-1]:
        return outer
    least = scores.topk(top_k, dim=-1).values[..., -1:]
    return outer.masked_fill(gates.unsqueeze(1) & (scores < least), -torch.inf)


def _softmax_within(scores: Tensor, block: Tensor) -> Tensor:
    """Normalise [B, H, l, P + L] over the keys of each block; zero where a block has none."""
    index = _index(block, scores)
    highest = _per_block(scores, block, "amax").gather(-1, index)
    powers = (scores - highest.detach()).nan_to_num(-torch.inf, neginf=-torch.inf).exp()
    total = _per_block(powers, block, "sum").gather(-1, index)
    return powers / total.clamp_min(torch.finfo(total.dtype).tiny)


def _per_block(x: Tensor, block: Tensor, reduce: str) -> Tensor:
    """Reduce [B, H, l, P + L] over the keys of each block, [B, H, l, N]."""
    start = 0.0 if reduce == "sum" else -torch.inf
    blocks = x.new_full((*x.shape[:-1], int(block.max()) + 1), start)
    return blocks.scatter_reduce(-1, _index(block, x), x, reduce)


def _index(block: Tensor, like: Tensor) -> Tensor:
    return block[:, None, None].expand_as(like)
