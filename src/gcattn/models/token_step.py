"""A decoded token that closes no chunk: the model's own lines, on a stream of fixed shapes.

Shapes: B batch, E hidden size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.utils import logging

from gcattn.memory.cache import DRTCache
from gcattn.memory.fixed_stream import FixedStream
from gcattn.memory.stream import Stream
from gcattn.models.call_plan import CallPlan
from gcattn.models.captured_token import CapturedToken, reason_not_to_capture
from gcattn.models.outputs import HiddenStates
from gcattn.nn.retriever import Retrieval

# the first calls of one token run as any other: after a prompt there may be only few, and between
# beams, which change places after every token, fixed shapes would have to be filled each time
SINGLE_CALLS_BEFORE = 2
# tokens in fixed shapes before their computation is captured, which costs about as much
COMPUTED_BEFORE_CAPTURE = 4

logger = logging.get_logger(__name__)


class Decoder(Protocol):
    """The diagram of a `DRTModel`."""

    def __call__(
        self,
        embeds: Tensor,
        plan: CallPlan,
        stream: Stream,
        retrieval: Retrieval,
        trace: HiddenStates,
    ) -> tuple[Tensor, Any]:
        """Return normed columns, and what was retrieved."""


def decode_token(
    model: nn.Module,
    decoder: Decoder,
    stream: Stream,
    input_ids: Tensor | None,
    embeds: Tensor,
    attention_mask: Tensor | None,
) -> Tensor | None:
    """Read one token in each row if it closes no chunk.

    Args:
        model: Holds the modules that the decoder runs.
        decoder: Its diagram.
        stream: What it runs on.
        input_ids: Ids, [B, 1]; None: they are not known.
        embeds: Their embeddings, [B, 1, E].
        attention_mask: 0 in rows whose token is padding, [B, 1] or wider; None: in none.

    Returns:
        Normed hidden states, [B, 1, E]; None if the call has to be planned.
    """
    if not isinstance(stream, DRTCache):
        return None
    state, B = stream.position.state, len(embeds)
    cannot = (
        torch.is_grad_enabled()
        or torch.is_autocast_enabled(embeds.device.type)
        or stream.config.self_attention != "window"  # a window of everything has no fixed shape
        or stream.config.num_recurrent_states
        or stream.config.retrieval_method == "fixed"
    )
    if state is None or len(state.open_length) != B or cannot:
        return None
    with stream.claimed():
        stream.num_single += 1
        if stream.num_single <= SINGLE_CALLS_BEFORE:
            return None
        if attention_mask is not None and attention_mask.shape[1] not in (1, stream.num_tokens + 1):
            return None
        running = [True] * B
        if attention_mask is not None:
            running = attention_mask[:, -1].bool().tolist()
        last_slot = stream.config.chunk_size - 2
        closes = any(
            length >= last_slot and runs
            for length, runs in zip(stream.open_lengths(), running, strict=True)
        )
        if closes or not any(running):
            return None
        fixed = stream.fixed()
        if fixed.embeds.dtype != embeds.dtype or fixed.embeds.device != embeds.device:
            return None
        log, advanced = stream.log.snapshot(), fixed.advanced
        fixed.begin(embeds, running)
        try:
            hidden = _run(model, partial(_compute, decoder, fixed), fixed)
            fixed.commit(input_ids)
        except BaseException:  # an interrupt as well
            stream.log.roll_back(log)
            fixed.go_back(advanced)
            raise
        return hidden


def _run(model: nn.Module, compute: Callable[[], Tensor], fixed: FixedStream) -> Tensor:
    """Replay the token's computation if it was captured, capture it if it can be, else compute."""
    if fixed.captured is not None:
        hidden = fixed.captured.replay(model)
        if hidden is not None:
            return hidden
        fixed.undo()
        fixed.captured, fixed.num_computed = None, 0
    fixed.num_computed += 1
    if fixed.num_computed == COMPUTED_BEFORE_CAPTURE:
        reason = reason_not_to_capture(model, fixed.embeds.device)
        if reason is None:
            try:
                captured = CapturedToken(model, compute, fixed.undo)
                hidden = captured.replay(model)
            except RuntimeError as error:  # a lack of memory as well
                reason = f"capturing failed: {error}"
                fixed.undo()
            else:
                assert hidden is not None  # nobody has changed the model since
                fixed.captured = captured
                return hidden
        if fixed.embeds.is_cuda:
            logger.warning_once(f"Tokens are decoded without a CUDA graph: {reason}.")
    return compute()


def _compute(decoder: Decoder, fixed: FixedStream) -> Tensor:
    """Run the model on the token in its place; nothing here asks the device for anything."""
    layout = fixed.layout
    blocks = layout.blocks(from_landmark=False)
    plan = CallPlan(layout, layout, blocks, 1, layout.num_finished, layout.chunk_of_token)
    retrieval = Retrieval(1)  # no landmark asks
    trace = HiddenStates(fixed.embeds, wanted=False)
    hidden, _ = decoder(fixed.embeds, plan, fixed, retrieval, trace)
    fixed.counters.move()
    return hidden
