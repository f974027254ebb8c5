"""What one forward call has to do: its layout, its blocks, what the upper decoder sees of it.

The memory depends on the lower decoder and the chunk encoder only. To give the last tokens'
logits, and to leave valid windows behind, the upper decoder needs no more than its receptive
field: the last num_upper_layers · (W - 1) + R · S columns. A prompt of any length costs it that
much and no more.

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
from gcattn.memory.stream import Stream

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


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


def plan_ahead(
    config: "DRTConfig",
    shape: tuple[int, int],
    *,
    chunk_breaks: Tensor | None = None,
    document_ids: Tensor | None = None,
) -> CallPlan:
    """Lay out whole rows before the model sees them: in the processes that load the data, say.

    A model on a GPU that plans its own call has to wait for breaks and documents to come back from
    the device, and the device waits for the plan.

    Args:
        config: The model's configuration.
        shape: (B, T) of the rows, none of which has padding.
        chunk_breaks: True where the chunk closes after this token, bool [B, T].
        document_ids: Document of each token, [B, T].

    Returns:
        What `forward(plan=…)` takes in place of the breaks, once it is on the model's device: `to`
        and `pin_memory` are those of a tensor.

    Raises:
        ValueError: A shape does not fit.
    """
    return plan_call(
        config,
        shape,
        torch.device("cpu"),
        Stream(config),
        attention_mask=None,
        chunk_breaks=chunk_breaks,
        document_ids=document_ids,
        num_logits=None,
    )


def check_plan(
    plan: CallPlan,
    shape: tuple[int, int],
    device: torch.device,
    stream: Stream,
    attention_mask: Tensor | None,
    chunk_breaks: Tensor | None,
) -> None:
    """Check that a plan made ahead fits a call.

    Raises:
        ValueError: It does not, or what it holds is passed again.
    """
    if attention_mask is not None or chunk_breaks is not None:
        raise ValueError(
            "A plan made ahead is for rows without padding and holds their breaks: pass neither "
            "attention_mask nor chunk_breaks beside it."
        )
    if stream.remembers:
        raise ValueError("A plan made ahead is for calls without a cache: pass use_cache=False.")
    if plan.chunk_of_token.shape != shape:
        planned = list(plan.chunk_of_token.shape)
        raise ValueError(f"The plan is for tokens {planned}, the call has {list(shape)}.")
    if plan.layout.positions.device != device:
        raise ValueError(
            f"The plan is on {plan.layout.positions.device}, the model on {device}: pass "
            "plan.to(device)."
        )


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
        attention_mask: 0 where a token is padding, [B, T], or over all that was read and T more.
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
        # a mask may cover what the stream has read too, breaks may close what is open before
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
    # every token takes a column, and a landmark at most
    num_upper = 2 * num_tokens + 1
    has_receptive_field = config.self_attention == "window" and not config.num_recurrent_states
    if num_logits is not None and has_receptive_field:
        num_upper = _receptive_field(config, num_logits)
    is_regular = all(x is None for x in (attention_mask, chunk_breaks, document_ids, before))
    if is_regular and not stream.remembers:
        whole = RegularLayout(S, B, num_tokens, device)
        upper = whole.tail(num_upper)
        blocks = upper.blocks(from_landmark=from_landmark)
        return CallPlan(whole, upper, blocks, num_upper, whole.num_finished, whole.chunk_of_token)
    if is_regular:
        # a fixed grid depends on nothing but its length: planned once, the same for every row
        return _fixed_grid((num_tokens, S, from_landmark, num_upper, device), B)
    is_plain = all(x is None for x in (attention_mask, chunk_breaks, document_ids))
    if before is not None and is_plain and num_tokens == 1:
        lengths = tuple(before.open_length.tolist())
        return _token_plan((lengths, S, from_landmark, num_upper, device), before)
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


def _views(
    layout: TableLayout, from_landmark: bool, num_upper: int, device: torch.device
) -> tuple[TableLayout, TableLayout, TableBlocks]:
    """Return the layouts of both decoders and the blocks, on `device`."""
    upper = layout.tail(num_upper)
    blocks = upper.blocks(from_landmark=from_landmark).to(device)
    here = layout.to(device)
    return here, here if upper is layout else upper.to(device), blocks


@lru_cache(maxsize=32)
def _fixed_row(
    num_tokens: int, chunk_size: int, from_landmark: bool, num_upper: int, device: torch.device
) -> tuple[tuple[TableLayout, TableLayout, TableBlocks], Tensor, Tensor, ChunkState]:
    # kept from call to call: made in inference mode it could not serve where gradients are recorded
    with torch.inference_mode(False):
        layout, state = plan_chunks(1, num_tokens, chunk_size)
        views = _views(layout, from_landmark, num_upper, device)
        return views, layout.num_finished, layout.chunk_of_token, state


def _fixed_grid(key: tuple[int, int, bool, int, torch.device], B: int) -> CallPlan:
    (layout, upper, blocks), finished, chunk_of_token, state = _fixed_row(*key)
    rows = layout.expand(B)
    return CallPlan(
        rows,
        rows if upper is layout else upper.expand(B),
        blocks.expand(B),
        key[3],
        finished.expand(B),
        chunk_of_token.expand(B, -1),
        state.select(torch.zeros(B, dtype=torch.long)),
    )


@lru_cache(maxsize=128)
def _token_views(
    open_lengths: tuple[int, ...],
    chunk_size: int,
    from_landmark: bool,
    num_upper: int,
    device: torch.device,
) -> tuple[tuple[TableLayout, TableLayout, TableBlocks], Tensor, Tensor, ChunkState]:
    with torch.inference_mode(False):  # see _fixed_row
        start = ChunkState.start(len(open_lengths))
        start = replace(start, open_length=torch.tensor(open_lengths))
        layout, state = plan_chunks(len(open_lengths), 1, chunk_size, state=start)
        views = _views(layout, from_landmark, num_upper, device)
        return views, layout.num_finished, layout.chunk_of_token, state


def _token_plan(
    key: tuple[tuple[int, ...], int, bool, int, torch.device], before: ChunkState
) -> CallPlan:
    """Plan a token in each row: once for all rows whose open chunks are as long."""
    (layout, upper, blocks), finished, chunk_of_token, state = _token_views(*key)
    stands = torch.stack([before.num_chunks, before.next_position, before.document])
    chunk, position, document = stands.to(key[-1])
    here = layout.moved(chunk, position, document)
    return CallPlan(
        here,
        here if upper is layout else upper.moved(chunk, position, document),
        blocks,
        key[3],
        finished,
        chunk_of_token + before.num_chunks[:, None],
        replace(
            before,
            open_length=state.open_length,
            num_chunks=before.num_chunks + state.num_chunks,
            next_position=before.next_position + state.next_position,
            started=state.started,
        ),
    )


def _receptive_field(config: "DRTConfig", num_logits: int) -> int:
    reach = config.num_upper_layers * (config.window_size - 1)
    # chunks closed early may put a landmark after each of the wanted tokens
    return reach + config.num_retrieval_groups * config.chunk_size + 2 * num_logits
