"""A segment of a prompt as CUDA graphs: the model's own code, on a stream of fixed shapes.

A GPU computes a segment of a few thousand tokens faster than the host launches its kernels, some
three hundred. Segments that begin with a chunk, have the same length and continue from states of
the same shapes differ only in values. So they share what was captured once, whichever cache they
are read into: graphs belong to the model.

Shapes: B batch, T tokens, E hidden size.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.utils import logging

from gcattn.chunking import ChunkState
from gcattn.memory.cache import DRTCache
from gcattn.memory.segment_stream import SegmentStream, segment_shapes
from gcattn.memory.stream import Stream
from gcattn.models.call_plan import KeptPlan, kept_plan
from gcattn.models.captured_step import CapturedStep, reason_not_to_capture
from gcattn.models.module_settings import ModuleSettings
from gcattn.models.outputs import HiddenStates
from gcattn.models.token_step import Decoder
from gcattn.nn.retriever import Retrieval

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

# where the host may be slower than the device
DEVICES = ("cuda",)
# with more tokens in a call the device is slower than the host
MOST_TOKENS = 32_768
# segments that a model keeps, and tokens in all of them: what graphs compute on stays allocated
MOST_SEGMENTS, MOST_TOKENS_KEPT = 4, 65_536
# what is retrieved is copied to where graphs read it: keys and values of one segment
MOST_RETRIEVED_BYTES = 2**29
# shapes whose calls are counted
MOST_COUNTED = 64

logger = logging.get_logger(__name__)
Value = TypeVar("Value")


class SegmentGraphs:
    """A model's captured segments, by what decides their shapes; a copy of a model has none.

    Attributes:
        lock: Held while one is read: they share no tensors with another thread's.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._captured: OrderedDict[Hashable, CapturedSegment] = OrderedDict()
        self._num_calls: OrderedDict[Hashable, int] = OrderedDict()

    def captured(
        self, key: Hashable, num_tokens: int, capture: Callable[[], "CapturedSegment | None"]
    ) -> "CapturedSegment | None":
        """Return what serves a call; None as long as there is nothing.

        Args:
            key: What decides the shapes of the call.
            num_tokens: Of all rows.
            capture: Called for a shape that comes again; returns None if it can't be captured.
        """
        if key in self._captured:
            self._captured.move_to_end(key)
            return self._captured[key]
        num_calls = self._num_calls.pop(key, 0) + 1
        _keep(self._num_calls, key, num_calls, MOST_COUNTED)
        if _is_due(num_calls):
            # room first: a graph that is dropped gives its memory back
            self._make_room(num_tokens)
            segment = capture()
            if segment is not None:
                self._captured[key] = segment
            return segment
        return None

    def _make_room(self, num_tokens: int) -> None:
        kept = self._captured
        while kept and (
            len(kept) >= MOST_SEGMENTS
            or num_tokens + sum(x.num_tokens for x in kept.values()) > MOST_TOKENS_KEPT
        ):
            kept.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        """Forget a graph of a model that has changed."""
        del self._captured[key]

    def __deepcopy__(self, memo: object) -> "SegmentGraphs":
        return SegmentGraphs()

    def __reduce__(self) -> Any:
        return SegmentGraphs, ()


def read_segment(
    model: nn.Module,
    decoder: Decoder,
    graphs: SegmentGraphs,
    stream: Stream,
    retrieval: Retrieval,
    input_ids: Tensor | None,
    embeds: Tensor,
    chunk_breaks: Tensor | None,
    num_logits: int,
) -> Tensor | None:
    """Read a segment without padding and documents, if a graph serves it.

    Args:
        model: Holds the modules that the decoder runs.
        decoder: What it computes.
        graphs: Those of the model.
        stream: What it runs on.
        retrieval: How landmarks retrieve.
        input_ids: Ids, [B, T]; None: they are not known.
        embeds: Their embeddings, [B, T, E].
        chunk_breaks: Where chunks close early; see `plan_call`.
        num_logits: How many of the last tokens' hidden states are wanted; 0: all.

    Returns:
        Normed hidden states [B, num_logits or T, E]; None if the call has to be planned.
    """
    if not isinstance(stream, DRTCache) or not _may_be_captured(model, stream, retrieval, embeds):
        return None
    B, num_tokens, _ = embeds.shape
    device = embeds.device
    kept = kept_plan(
        stream.config, (B, num_tokens), device, stream, chunk_breaks, num_logits or None
    )
    if kept is None or not kept.layout.num_finished_chunks:
        return None
    retrieved = B * kept.blocks.num_blocks * retrieval.top_k
    if retrieved * _chunk_bytes(stream.config, embeds) > MOST_RETRIEVED_BYTES:
        return None
    # graphs of one CUDA stream run in its order; another one gets its own
    queue = torch.cuda.current_stream(device).cuda_stream if embeds.is_cuda else 0
    shapes = segment_shapes(stream, retrieval.top_k)
    key = kept.grid, B, embeds.dtype, num_logits, retrieval, shapes, queue
    if not graphs.lock.acquire(blocking=False):
        return None
    try:
        segment = graphs.captured(
            key,
            B * num_tokens,
            lambda: _capture(model, decoder, stream, retrieval, embeds, kept, num_logits),
        )
        if segment is None:
            return None
        hidden = segment.read(model, stream, input_ids, embeds)
        if hidden is None:
            graphs.drop(key)
        return hidden
    finally:
        graphs.lock.release()


def _may_be_captured(
    model: nn.Module, cache: DRTCache, retrieval: Retrieval, embeds: Tensor
) -> bool:
    config, state = cache.config, cache.position.state
    return (
        embeds.device.type in DEVICES
        and not torch.compiler.is_compiling()
        and embeds.shape[1] > 1
        and embeds.shape[:2].numel() <= MOST_TOKENS
        and not model.training
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled(embeds.device.type)
        and config.self_attention == "window"  # a window over all columns has no fixed shape
        and not config.num_recurrent_states
        and config.retrieval_method != "fixed"
        and retrieval.temperature_spread == 1  # a graph would have to draw numbers
        and cache.lower_window.is_all_used
        and cache.upper_window.is_all_used
        and (state is None or not bool(state.document.any()))
    )


def _chunk_bytes(config: "DRTConfig", like: Tensor) -> int:
    slots = config.chunk_size * config.num_key_value_heads
    return 2 * slots * config.head_dim * like.element_size()


def _capture(
    model: nn.Module,
    decoder: Decoder,
    cache: DRTCache,
    retrieval: Retrieval,
    embeds: Tensor,
    kept: KeptPlan,
    num_logits: int,
) -> "CapturedSegment | None":
    reason = reason_not_to_capture(model, embeds.device)
    if reason is None:
        try:
            with torch.cuda.device_of(embeds):  # which need not be the current one
                return CapturedSegment(model, decoder, cache, retrieval, embeds, kept, num_logits)
        except RuntimeError as error:  # a lack of memory as well
            reason = f"capturing failed: {error}"
    logger.warning_once(f"Prompts are read without a CUDA graph: {reason}.")
    return None


class CapturedSegment:
    """The graphs of segments of one shape.

    Args:
        model: Whose modules run in them.
        decoder: What it computes.
        cache: A cache that continues as all do that are read into.
        retrieval: How landmarks retrieve.
        embeds: Like the embeddings of a segment, [B, T, E].
        kept: The plan of one row.
        num_logits: How many of the last tokens' hidden states are wanted; 0: all.

    Attributes:
        num_tokens: Of all rows.
    """

    def __init__(
        self,
        model: nn.Module,
        decoder: Decoder,
        cache: DRTCache,
        retrieval: Retrieval,
        embeds: Tensor,
        kept: KeptPlan,
        num_logits: int,
    ) -> None:
        self.num_tokens, self._kept = embeds.shape[:2].numel(), kept
        rows = kept.expand(len(embeds))
        # so that calls of any mode can write
        with torch.inference_mode(False), torch.no_grad():
            self._stream = stream = SegmentStream(cache, embeds, retrieval.top_k)

            def compute() -> Tensor:
                stream.begin()
                chunks, columns = stream.moved_by
                plan = rows.moved((chunks, columns, None))
                trace = HiddenStates(stream.embeds, wanted=False)
                hidden, _ = decoder(stream.embeds, plan, stream, retrieval, trace)
                stream.finish()
                return plan.upper.tokens_from_columns(hidden, num_logits)

            # it reads one set of tensors and writes to another
            self._step = CapturedStep(model, compute, lambda: None, stream.work)
        self._settings = ModuleSettings(model)

    def read(
        self, model: nn.Module, cache: DRTCache, input_ids: Tensor | None, embeds: Tensor
    ) -> Tensor | None:
        """Read a segment into a cache; returns normed hidden states of the wanted tokens.

        Returns None, and has changed nothing, if the model would compute something else now.
        """
        stream, state = self._stream, cache.position.state
        before = ChunkState.start(len(embeds)) if state is None else state
        untouched = cache.snapshot()
        cache.log.extend(input_ids, self._kept.chunks_after(before))
        try:
            stream.fill(cache, embeds, before)
            hidden = self._step.replay(model, checks_last=True)
        finally:
            stream.let_go()
        # also while the device computes
        if hidden is None or not self._settings.are_those_of(model):
            cache.roll_back(untouched)
            return None
        stream.settle(cache)
        cache.position.move(self._kept.state_after(before))
        return hidden


def _is_due(num_calls: int) -> bool:
    """Say whether a shape is captured at its call of this number that no graph serves.

    That takes as long as several calls. So it is the second one, the fourth, the eighth and so on:
    a shape whose graphs are dropped again and again is captured more and more rarely.
    """
    return num_calls > 1 and num_calls.bit_count() == 1


def _keep(held: OrderedDict[Hashable, Value], key: Hashable, value: Value, most: int) -> None:
    """Put an entry last, and drop the first ones of too many."""
    held[key] = value
    while len(held) > most:
        held.popitem(last=False)
