"""The plan of one forward call: its layout, its blocks, and which columns the upper decoder sees.

The memory depends only on the lower decoder and the chunk encoder. For the logits of the last
tokens, and for valid windows after the call, the upper decoder needs no more than its receptive
field: the last num_upper_layers · (W - 1) + R · S columns. That is its cost for a prompt of any
length.

Shapes: B batch, T tokens, L columns, S slots per chunk, W window, R retrieval groups.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from gcattn.chunking import (
    BlockGrid,
    ChunkLayout,
    ChunkState,
    RegularLayout,
    TableBlocks,
    TableLayout,
    plan_chunks,
)
from gcattn.chunking.breaks import CLOSES_BEFORE_END
from gcattn.chunking.packing import moved_together
from gcattn.memory.stream import Stream

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


# tokens of the longest call whose plan is kept: it takes about 100 bytes of the device for each
LONGEST_KEPT = 2**17


@dataclass(frozen=True)
class CallPlan:
    """The layouts of one call, on the device of the model."""

    layout: ChunkLayout  # of the lower decoder
    upper: ChunkLayout  # of the upper decoder: the same one, or its tail
    blocks: BlockGrid  # of cross-attention
    num_upper_columns: int  # at least as many of each row's last columns are the upper decoder's
    # the rest is on the CPU if there is a next call
    finished: Tensor  # [B], chunks that each row finishes
    chunk_of_token: Tensor  # [B, T], number of each token's chunk in its row; -1 for padding
    state: ChunkState | None = None  # after the call; None: no call follows
    chunk_embeddings: Tensor | None = None  # [B, F, P], of a fixed retriever

    def upper_embeddings(self) -> Tensor | None:
        """Take the embeddings of the chunks that the upper decoder finishes, [B, F', P]."""
        if self.chunk_embeddings is None or self.upper is self.layout:
            return self.chunk_embeddings
        if not self.layout.num_finished_chunks:
            return self.chunk_embeddings
        # chunks before a chunk of the call, less those before the call
        place = (self.upper.num_visible - self.layout.num_visible[:, :1]).clamp_min(0)
        rows = torch.arange(len(place), device=place.device)[:, None]
        return self.chunk_embeddings[rows, place]

    def upper_columns(self, hidden: Tensor) -> Tensor:
        """Cut the lower decoder's columns to those that the upper decoder reads."""
        return self.layout.tail_columns(hidden, self.num_upper_columns)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        """Return the same plan for a model on `device`."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same plan in memory that a GPU can read, as data loaders ask for."""
        return self._map(lambda x: x.pin_memory())

    def _map(self, change: Callable[[Any], Any]) -> Self:
        layout = change(self.layout)
        upper = layout if self.upper is self.layout else change(self.upper)
        return replace(self, layout=layout, upper=upper, blocks=change(self.blocks))


def plan_call(
    config: "DRTConfig",
    shape: tuple[int, int],
    device: torch.device,
    stream: Stream,
    *,
    attention_mask: Tensor | None,
    chunk_breaks: Tensor | None,
    document_ids: Tensor | None,
    num_logits: int | None,
) -> CallPlan:
    """Lay out one call.

    Args:
        config: The model's configuration.
        shape: (B, T).
        device: Where the model computes.
        stream: What the call continues from.
        attention_mask: 0 where a token is padding, [B, T], or [B, P + T] for P tokens read before.
        chunk_breaks: True where the chunk closes after this token, bool [B, T], or [B, T + 1]
            whose first column closes the chunk that is open before the call.
        document_ids: Document of each token, [B, T].
        num_logits: How many of the last tokens' logits are wanted; None for all.

    Returns:
        The plan, on `device`.

    Raises:
        ValueError: A shape does not fit, or there is no token at all.
    """
    B, num_tokens = shape
    for name, x, more in (
        ("attention_mask", attention_mask, stream.log.num_tokens),
        ("chunk_breaks", chunk_breaks, 1),
        ("document_ids", document_ids, 0),
    ):
        # a mask may cover what was read before, and breaks may close the chunk that is open before
        if x is not None and x.shape not in ((B, num_tokens), (B, num_tokens + more)):
            wide = f" or {[B, num_tokens + more]}" if more else ""
            raise ValueError(
                f"{name} must have shape [B, T] = {list(shape)}{wide}, got {list(x.shape)}."
            )
    if attention_mask is not None:
        attention_mask = attention_mask[:, -num_tokens:]
    before = stream.position.state
    if before is not None and len(before.open_length) != B:
        rows = len(before.open_length)
        hint = (
            f"; repeat it with cache.batch_repeat_interleave({B // rows})" if B % rows == 0 else ""
        )
        raise ValueError(f"The cache is of batch size {rows}, the call of {B}{hint}.")
    S, from_landmark = config.chunk_size, config.retrieval_serves == "from_landmark"
    num_upper = _num_upper(config, num_tokens, num_logits)
    is_plain = all(x is None for x in (attention_mask, chunk_breaks, document_ids))
    if is_plain and before is None and not stream.remembers:
        whole = RegularLayout(S, B, num_tokens, device)
        upper = whole.tail(num_upper)
        blocks = upper.blocks(from_landmark=from_landmark)
        return CallPlan(whole, upper, blocks, num_upper, whole.num_finished, whole.chunk_of_token)
    before = ChunkState.start(B) if before is None else before
    if attention_mask is None and document_ids is None:
        kept = kept_plan(config, shape, device, stream, chunk_breaks, num_logits)
        if kept is not None:
            return kept.expand(B).continuing(before)
    if is_plain and num_tokens == 1:
        lengths = tuple(before.open_length.tolist())
        return _token_plan(lengths, S, from_landmark, num_upper, device).continuing(before)
    layout, state = plan_chunks(
        *shape,
        S,
        valid=attention_mask,
        chunk_breaks=chunk_breaks,
        document_ids=document_ids,
        state=before,
    )
    views = _views(layout, from_landmark, num_upper, device)
    return CallPlan(*views, num_upper, layout.num_finished, layout.chunk_of_token, state)


def kept_plan(
    config: "DRTConfig",
    shape: tuple[int, int],
    device: torch.device,
    stream: Stream,
    chunk_breaks: Tensor | None,
    num_logits: int | None,
) -> "KeptPlan | None":
    """Return the plan of one row of a call, if it is that of all rows and may come again.

    All rows begin with a chunk, and their chunks close at the same places, which the host knows.
    Rows have neither padding nor documents of their own; see `plan_call` for the arguments.
    """
    (B, num_tokens), before = shape, stream.position.state
    if not stream.remembers or (
        before is not None and (len(before.open_length) != B or before.open_length.any())
    ):
        return None
    breaks = _common_breaks(chunk_breaks, shape)
    if breaks is None or num_tokens > LONGEST_KEPT:
        return None
    num_upper = _num_upper(config, num_tokens, num_logits)
    from_landmark = config.retrieval_serves == "from_landmark"
    return _row_plan(num_tokens, breaks, config.chunk_size, from_landmark, num_upper, device)


def _common_breaks(chunk_breaks: Tensor | None, shape: tuple[int, int]) -> tuple[int, ...] | None:
    """Return after which tokens the chunks of all rows close early; None: they differ, or many."""
    if chunk_breaks is None:
        return ()
    B, num_tokens = shape
    fits = chunk_breaks.shape in (shape, (B, num_tokens + 1))
    if not fits or not chunk_breaks.is_cpu or (chunk_breaks != chunk_breaks[:1]).any():
        return None
    at = (chunk_breaks[0].nonzero().flatten() + num_tokens - chunk_breaks.shape[1]).tolist()
    # before the first token no chunk is open
    return tuple(at) if len(at) <= len(CLOSES_BEFORE_END) and min(at, default=0) >= 0 else None


def _views(
    layout: TableLayout, from_landmark: bool, num_upper: int, device: torch.device
) -> tuple[TableLayout, TableLayout, TableBlocks]:
    """Return the layouts of both decoders and the blocks, on `device`."""
    upper = layout.tail(num_upper)
    blocks = upper.blocks(from_landmark=from_landmark)
    if device.type == "cpu":
        return layout, upper, blocks
    if upper is layout:
        here, blocks = moved_together(device, layout, blocks)
        return here, here, blocks
    here, there, blocks = moved_together(device, layout, upper, blocks)
    return here, there, blocks


@dataclass(frozen=True)
class KeptPlan:
    """A plan for the beginning of a stream; elsewhere in a stream only positions differ."""

    grid: tuple[Any, ...]  # what it was made of
    layout: TableLayout
    upper: TableLayout
    blocks: TableBlocks
    num_upper_columns: int
    finished: Tensor
    chunk_of_token: Tensor
    after: ChunkState

    @classmethod
    def make(
        cls,
        start: ChunkState,
        num_tokens: int,
        breaks: tuple[int, ...],
        chunk_size: int,
        from_landmark: bool,
        num_upper: int,
        device: torch.device,
    ) -> Self:
        """Plan rows that stand at `start`; for the rest see `plan_call` and `_views`."""
        # kept from call to call: tensors made in inference mode could not be used where gradients
        # are recorded
        with torch.inference_mode(False):
            B = len(start.open_length)
            closes = torch.zeros(B, num_tokens, dtype=torch.bool)
            closes[:, list(breaks)] = True
            layout, after = plan_chunks(B, num_tokens, chunk_size, chunk_breaks=closes, state=start)
            views = _views(layout, from_landmark, num_upper, device)
            grid = num_tokens, breaks, chunk_size, from_landmark, num_upper, device
            return cls(grid, *views, num_upper, layout.num_finished, layout.chunk_of_token, after)

    def expand(self, B: int) -> Self:
        """Return the plan of one row for `B` rows, without copying."""
        layout = self.layout.expand(B)
        return replace(
            self,
            layout=layout,
            upper=layout if self.upper is self.layout else self.upper.expand(B),
            blocks=self.blocks.expand(B),
            finished=self.finished.expand(B),
            chunk_of_token=self.chunk_of_token.expand(B, -1),
            after=self.after.select(torch.zeros(B, dtype=torch.long)),
        )

    def continuing(self, before: ChunkState) -> CallPlan:
        """Return the plan of rows that continue from `before`, whose open chunks are as long."""
        moved_by = torch.stack([before.num_chunks, before.next_position, before.document])
        shift = None
        if moved_by.any():
            # a copy that blocks would wait for all that the device still computes
            device = self.layout.positions.device
            chunk, position, document = moved_by.to(device, non_blocking=True)
            shift = chunk, position, document if before.document.any() else None
        plan = self.moved(shift)
        return replace(
            plan, chunk_of_token=self.chunks_after(before), state=self.state_after(before)
        )

    def moved(self, shift: tuple[Tensor, Tensor, Tensor | None] | None) -> CallPlan:
        """Return the plan of rows that stand so many chunks, columns and documents on, [B].

        Nothing in it is computed on the host, where the rows' own chunk numbers and state are.
        """
        layout, upper = self.layout, self.upper
        if shift is not None:
            layout = layout.moved(*shift)
            upper = layout if self.upper is self.layout else upper.moved(*shift)
        finished, numbers = self.finished, self.chunk_of_token
        return CallPlan(layout, upper, self.blocks, self.num_upper_columns, finished, numbers)

    def chunks_after(self, before: ChunkState) -> Tensor:
        """Return the number of each token's chunk, [B, T], for rows that continue from `before`."""
        return self.chunk_of_token + before.num_chunks[:, None]

    def state_after(self, before: ChunkState) -> ChunkState:
        """Return where rows that continue from `before` stand after the call."""
        after = self.after
        return replace(
            before,
            open_length=after.open_length.expand_as(before.open_length).clone(),
            num_chunks=before.num_chunks + after.num_chunks,
            next_position=before.next_position + after.next_position,
            started=after.started.expand_as(before.started).clone(),
        )


# few are kept: each may take some MB of the device
@lru_cache(maxsize=4)
def _row_plan(num_tokens: int, *grid: Any) -> KeptPlan:
    """Plan one row that begins with a chunk."""
    return KeptPlan.make(ChunkState.start(1), num_tokens, *grid)


@lru_cache(maxsize=128)
def _token_plan(open_lengths: tuple[int, ...], *grid: Any) -> KeptPlan:
    """Plan a token in each row: once for all rows whose open chunks are as long."""
    start = ChunkState.start(len(open_lengths))
    return KeptPlan.make(replace(start, open_length=torch.tensor(open_lengths)), 1, (), *grid)


def _num_upper(config: "DRTConfig", num_tokens: int, num_logits: int | None) -> int:
    """Return how many of the last columns the upper decoder reads."""
    has_receptive_field = config.self_attention == "window" and not config.num_recurrent_states
    if num_logits is None or not has_receptive_field:
        return 2 * num_tokens + 1  # every token takes a column, and at most one landmark more
    reach = config.num_upper_layers * (config.window_size - 1)
    # if chunks close early, a landmark may follow each of the wanted tokens
    return reach + config.num_retrieval_groups * config.chunk_size + 2 * num_logits
