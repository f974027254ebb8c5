"""A decoded token and the landmark after it: the model's own code, on a stream of fixed shapes.

A token that closes a chunk is followed by the landmark as a column of its own. Causality makes that
the same as both columns in one call.

Shapes: B batch, E hidden size.
"""

from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.utils import logging

from gcattn.memory.cache import DRTCache
from gcattn.memory.column_step import ColumnStep
from gcattn.memory.fixed_stream import FixedStream
from gcattn.memory.stream import Stream
from gcattn.models.call_plan import CallPlan
from gcattn.models.captured_step import CapturedStep, reason_not_to_capture
from gcattn.models.outputs import HiddenStates
from gcattn.nn.retriever import Retrieval

# the first calls of one token run like any others: there may be only few, and beams change places
# after every token, so that fixed shapes would have to be filled each time
SINGLE_CALLS_BEFORE = 2
# tokens and landmarks that are computed in fixed shapes before their computation is captured, which
# costs as much as computing several
TOKENS_UNTIL_CAPTURE, LANDMARKS_UNTIL_CAPTURE = 4, 2
# recording the calls of a landmark on a CPU costs what about ten replays save
LANDMARKS_UNTIL_RECORDING = 10

logger = logging.get_logger(__name__)


class Decoder(Protocol):
    """What a `DRTModel` computes between embeddings and normed columns."""

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
    retrieval: Retrieval,
    input_ids: Tensor | None,
    embeds: Tensor,
    attention_mask: Tensor | None,
) -> Tensor | None:
    """Read one token in each row, if that needs no plan.

    Args:
        model: Holds the modules that the decoder runs.
        decoder: What it computes.
        stream: What it runs on.
        retrieval: How landmarks retrieve.
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
        or stream.config.self_attention != "window"  # a window over all columns has no fixed shape
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
        if not any(running):
            return None
        fixed = stream.fixed()
        if fixed.embeds.dtype != embeds.dtype or fixed.embeds.device != embeds.device:
            return None
        last_slot = stream.config.chunk_size - 2
        closes = [
            length >= last_slot and runs
            for length, runs in zip(fixed.open_lengths(), running, strict=True)
        ]
        if any(closes) and retrieval != Retrieval(fixed.top_k):
            return None
        before = fixed.snapshot(closes=any(closes))
        try:
            fixed.begin_token(embeds, running)
            hidden = _run(model, decoder, fixed, fixed.token, TOKENS_UNTIL_CAPTURE)
            fixed.commit_token(input_ids)
            if any(closes):
                fixed.begin_landmark(closes)
                patience = LANDMARKS_UNTIL_CAPTURE if embeds.is_cuda else LANDMARKS_UNTIL_RECORDING
                _run(model, decoder, fixed, fixed.landmark, patience)
                fixed.commit_landmark()
        except BaseException:  # an interrupt as well
            fixed.roll_back(before)
            raise
        return hidden


def _run(
    model: nn.Module, decoder: Decoder, fixed: FixedStream, step: ColumnStep, until_capture: int
) -> Tensor:
    """Replay the computation of a column if it was captured, capture it if it can be, or compute.

    Returns:
        Normed hidden states, [B, 1, E].
    """
    if step.captured is not None:
        hidden = step.captured.replay(model)
        if hidden is not None:
            return hidden
        fixed.undo()
        step.captured, step.num_computed = None, 0
    compute = partial(_compute, decoder, fixed, step)
    step.num_computed += 1
    if step.num_computed == until_capture:
        reason = reason_not_to_capture(model, fixed.embeds.device)
        if reason is None:
            try:
                with torch.cuda.device_of(fixed.embeds):  # which need not be the current one
                    step.captured = CapturedStep(model, compute, fixed.undo, fixed.work)
            except RuntimeError as error:  # a lack of memory as well
                reason = f"capturing failed: {error}"
                fixed.undo()
            else:
                hidden = step.captured.replay(model)
                assert hidden is not None  # nobody has changed the model since
                return hidden
        if fixed.embeds.is_cuda:
            logger.warning_once(f"Tokens are decoded without a CUDA graph: {reason}.")
    return compute()


def _compute(decoder: Decoder, fixed: FixedStream, step: ColumnStep) -> Tensor:
    """Run the model on the columns in their places; only the host's work waits for the device."""
    fixed.work.begin()
    layout = step.layout
    blocks = layout.blocks(from_landmark=False)
    plan = CallPlan(layout, layout, blocks, 1, layout.num_finished, layout.chunk_of_token)
    trace = HiddenStates(fixed.embeds, wanted=False)
    hidden, _ = decoder(fixed.embeds, plan, fixed, Retrieval(fixed.top_k), trace)
    fixed.finish(step)
    return hidden
