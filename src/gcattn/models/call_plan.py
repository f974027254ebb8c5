"""What one forward call has to do: its layout, its blocks, what the upper decoder sees of it.

The memory depends on the lower decoder and the chunk encoder only. To give the last tokens'
logits, and to leave valid windows behind, the upper decoder needs no more than its receptive
field: the last num_upper_layers · (W - 1) + R · S columns. A prompt of any length costs it that
much and no more.

Shapes: B batch, T tokens, L columns, S slots per chunk, W window, R retrieval groups.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gcattn.chunking import (
    BlockGrid,
    ChunkLayout,
    ChunkState,
    RegularBlocks,
    RegularLayout,
    plan_chunks,
)

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


@dataclass(frozen=True)
class CallPlan:
    """The layouts of one call, on the device of the model."""

    layout: ChunkLayout | RegularLayout  # of the lower decoder
    upper: ChunkLayout | RegularLayout  # of the upper decoder: the same, or its tail
    blocks: BlockGrid | RegularBlocks  # of cross-attention
    num_upper_columns: int | None = None  # None: all
    finished: Tensor | None = None  # [B], chunks that the call finishes, on the CPU
    state: ChunkState | None = None  # behind the call, on the CPU


def plan_call(
    config: "DRTConfig",
    shape: tuple[int, int],
    device: torch.device,
    *,
    attention_mask: Tensor | None,
    chunk_breaks: Tensor | None,
    document_ids: Tensor | None,
    state: ChunkState | None,
    remembers: bool,
    num_logits: int | None,
) -> CallPlan:
    """Lay out one call.

    Args:
        config: The model's configuration.
        shape: (B, T).
        device: Where the model computes.
        attention_mask: 0 where a token is padding, [B, T].
        chunk_breaks: True where the chunk closes after this token, bool [B, T].
        document_ids: Document of each token, [B, T].
        state: Where the rows stand; None at the beginning of a stream.
        remembers: A cache takes over what the call leaves behind.
        num_logits: How many of the last tokens' logits are wanted; None for all.

    Returns:
        The plan, on `device`.

    Raises:
        ValueError: A shape does not fit, or there is no token at all.
    """
    for name, x in (
        ("attention_mask", attention_mask),
        ("chunk_breaks", chunk_breaks),
        ("document_ids", document_ids),
    ):
        if x is not None and tuple(x.shape) != tuple(shape):
            raise ValueError(f"{name} must have shape [B, T] = {list(shape)}, got {list(x.shape)}.")
    num_columns = None if num_logits is None else _receptive_field(config, num_logits)
    serves = config.retrieval_serves
    given = (attention_mask, chunk_breaks, document_ids, state)
    if all(x is None for x in given) and not remembers and num_logits is None:
        whole = RegularLayout(config.chunk_size, *shape, device)
        return CallPlan(whole, whole, whole.blocks(from_landmark=serves == "from_landmark"))
    if all(x is None for x in given):
        # a fixed grid depends on nothing but its length: planned once, the same for every row
        return _fixed_grid(shape, config.chunk_size, serves, num_columns, device)
    layout, after = plan_chunks(
        *shape,
        config.chunk_size,
        valid=attention_mask,
        chunk_breaks=chunk_breaks,
        document_ids=document_ids,
        state=state,
    )
    return CallPlan(
        *_views(layout, serves, num_columns, device), finished=layout.num_finished, state=after
    )


def _receptive_field(config: "DRTConfig", num_logits: int) -> int:
    reach = config.num_upper_layers * (config.window_size - 1)
    # chunks closed early may put a landmark behind each of the wanted tokens
    return reach + config.num_retrieval_groups * config.chunk_size + 2 * num_logits


def _views(
    layout: ChunkLayout, serves: str, num_columns: int | None, device: torch.device
) -> tuple[ChunkLayout, ChunkLayout, BlockGrid, int | None]:
    """Return the layouts of both decoders and the blocks, on `device`, and the upper columns."""
    if num_columns is not None and num_columns >= layout.num_columns:
        num_columns = None
    upper = layout if num_columns is None else layout.tail(num_columns)
    blocks = upper.blocks(from_landmark=serves == "from_landmark")
    return layout.to(device), upper.to(device), blocks.to(device), num_columns


@lru_cache(maxsize=32)
def _fixed_row(
    num_tokens: int, chunk_size: int, serves: str, num_columns: int | None, device: torch.device
) -> tuple[tuple[ChunkLayout, ChunkLayout, BlockGrid, int | None], Tensor, ChunkState]:
    layout, state = plan_chunks(1, num_tokens, chunk_size)
    return _views(layout, serves, num_columns, device), layout.num_finished, state


def _fixed_grid(
    shape: tuple[int, int],
    chunk_size: int,
    serves: str,
    num_columns: int | None,
    device: torch.device,
) -> CallPlan:
    B, num_tokens = shape
    views, finished, state = _fixed_row(num_tokens, chunk_size, serves, num_columns, device)
    layout, upper, blocks, num_columns = views
    return CallPlan(
        layout.expand(B),
        upper.expand(B),
        replace(blocks, column=blocks.column.expand(B, -1, -1), place=blocks.place.expand(B, -1)),
        num_columns,
        finished.expand(B),
        state.select(torch.zeros(B, dtype=torch.long)),
    )
