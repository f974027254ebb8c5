"""The Differentiable Retrieval-based Transformer: the lines of `DRTModel.forward` are the diagram.

tokens ─ columns ─ lower decoder ─┬─ chunk encoder ─ memory
                                  └─ for each group: retriever ─ upper decoder ─ norm ─ tokens

Shapes: B batch, T tokens, L columns, C chunks touched, F chunks finished, S slots per chunk,
K retrieved chunks, E hidden size, V vocabulary, R retrieval groups.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from gcattn.chunking import ChunkLayout
from gcattn.memory.cache import DRTCache
from gcattn.memory.chunk_memory import ChunkSource, EncodedChunks
from gcattn.memory.sizes import check_same_sizes
from gcattn.memory.stream import ReadingStream, Stream
from gcattn.memory.window import WindowCache
from gcattn.models.cache_name import given_cache, named_cache
from gcattn.models.call_plan import CallPlan, plan_call
from gcattn.models.configuration_drt import DRTConfig
from gcattn.models.defaults import check_defaults, in_wanted_form
from gcattn.models.initialization import (
    align_cross_attention,
    align_embeddings,
    align_retrievers,
    initialize_module,
    quiet_layers,
)
from gcattn.models.outputs import DRTModelOutput, HiddenStates
from gcattn.models.packing import PACKING_ARGUMENTS, packed_documents
from gcattn.models.retrieval_group import RetrievalGroup
from gcattn.models.token_ids import check_ids, check_special_ids
from gcattn.models.token_step import decode_token
from gcattn.nn.chunk_encoder import ChunkEncoder
from gcattn.nn.convolution import ColumnConvolution
from gcattn.nn.decoder_layer import DecoderLayer, RetrievalDecoderLayer
from gcattn.nn.retriever import Retrieval, Retriever
from gcattn.nn.rms_norm import RMSNorm
from gcattn.nn.rotary import rotary_angles
from gcattn.nn.self_attention import ColumnContext
from gcattn.ops.chunk_topk import ChunkSelection

logger = logging.get_logger(__name__)

# names that tensors of output layers begin with
HEADS = ("lm_head.", "score.")


def check_loading_report(report: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of the configuration, heads aside.

    Raises:
        ValueError: The file holds tensors that would be ignored, or lacks some of the decoder.
    """
    for keys, what in (("unexpected_keys", "has besides"), ("missing_keys", "lacks")):
        # heads come and go: a language model becomes a classifier
        if names := sorted(k for k in report[keys] if not k.startswith(HEADS)):
            raise ValueError(
                f"The weights and the configuration disagree: the file {what} {len(names)} "
                f"tensors, {names[0]} among them. A field of config.json is not the one that "
                "the model was trained with."
            )


class DRTPreTrainedModel(PreTrainedModel):
    """What transformers needs to know about a DRT."""

    config: DRTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DecoderLayer", "RetrievalDecoderLayer", "EncoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["cache", "past_key_values"]  # noqa: RUF012
    _is_stateful = True
    _can_compile_fullgraph = False
    _supports_sdpa = True

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Change how many ids there are; see transformers for the arguments.

        Raises:
            ValueError: A special token of the configuration would be left outside.
        """
        if new_num_tokens is not None:
            multiple = pad_to_multiple_of or 1
            check_special_ids(self.config, -(-new_num_tokens // multiple) * multiple)
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as transformers does, but no weights that are not those of the configuration.

        Raises:
            ValueError: The file holds tensors that would be ignored, or lacks some of the decoder.
        """
        wanted = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if wanted:  # whoever asks for the report reads it
            return loaded
        model, report = loaded
        check_loading_report(report)
        return model

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Do nothing: the class is in an installed package, and no copy of it is saved."""

    def _init_weights(self, module: nn.Module) -> None:
        initialize_module(module, self.config.initializer_range)

    def initialize_weights(self) -> None:
        """Give every weight that was not loaded its start, then align the modules."""
        # aligning joins several modules; `_init_weights` is never given one that holds them all
        model: Any = self.base_model
        # loading marks weights, which may be quantised by now; a start marks modules
        marked = (model.norm, model.norm.weight)
        is_new = not any(getattr(x, "_is_hf_initialized", False) for x in marked)
        super().initialize_weights()
        if not is_new or self.config.cross_attention_init != "aligned":
            return
        quiet_layers(self, self.config.initializer_range)
        align_embeddings(model.embed_tokens, model.embed_landmark)
        encoder: ChunkEncoder | None = model.chunk_encoder
        if encoder is not None:
            layers = [m for m in self.modules() if isinstance(m, RetrievalDecoderLayer)]
            retrievers = [m for m in self.modules() if isinstance(m, Retriever)]
            align_retrievers(retrievers, self.config.initial_score_scale)
            align_cross_attention(encoder, [m.cross_attention for m in layers])


class DRTModel(DRTPreTrainedModel):
    """Decoder that retrieves past chunks: token ids in, hidden states out (paper, section 3)."""

    def __init__(self, config: DRTConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        # outside the table, so that no id stands for a landmark and no logit predicts one
        self.embed_landmark = nn.Embedding(1, config.hidden_size)
        taps = config.embedding_convolution_size
        self.convolution = ColumnConvolution(taps, config.hidden_size) if taps > 1 else None
        self.lower_layers = nn.ModuleList(
            DecoderLayer(config, i) for i in range(config.num_lower_layers)
        )
        retrieves = config.retrieval_method != "none"
        self.chunk_encoder = ChunkEncoder(config) if retrieves else None
        self.retrieval_groups = nn.ModuleList(
            RetrievalGroup(config, r) for r in range(config.num_retrieval_groups)
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DRTCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        chunk_breaks: Tensor | None = None,
        document_ids: Tensor | None = None,
        retrieval: Retrieval | None = None,
        output_retrieval: bool = False,
        output_hidden_states: bool | None = None,
        cache: DRTCache | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the decoder over plain tokens; see `DRTForCausalLM.forward` for the arguments.

        Returns:
            `DRTModelOutput`: `last_hidden_state` of the tokens, [B, T, E], or of the last
            `logits_to_keep`.
        """
        packing = {name: kwargs.pop(name) for name in PACKING_ARGUMENTS & kwargs.keys()}
        check_defaults(kwargs, type(self).__name__)
        embeds = self._embed(input_ids, inputs_embeds)
        stream = self._stream(given_cache(cache, past_key_values), use_cache)
        if document_ids is None:
            document_ids = packed_documents(
                (embeds.shape[0], embeds.shape[1]),
                attention_mask=attention_mask,
                position_ids=position_ids,
                continues=stream.position.state is not None,
                packing=packing,
            )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        retrieval = self._default_retrieval() if retrieval is None else retrieval
        trace = HiddenStates(embeds, wanted=bool(output_hidden_states))
        keep, wants_more = 0, output_hidden_states or output_retrieval
        if isinstance(logits_to_keep, int) and not wants_more:
            keep = min(logits_to_keep, embeds.shape[1])
        if (
            embeds.shape[1] == 1
            and chunk_breaks is None
            and document_ids is None
            and not wants_more
        ):
            token = decode_token(self, self._run, stream, input_ids, embeds, attention_mask)
            if token is not None:
                return DRTModelOutput(last_hidden_state=token, **named_cache(stream))
        missing = embeds.shape[1] - (0 if chunk_breaks is None else chunk_breaks.shape[1])
        if chunk_breaks is not None and inputs_embeds is not None and missing > 0:
            chunk_breaks = F.pad(chunk_breaks, (missing, 0))  # a soft prompt stands in front
        with stream.call():
            plan = plan_call(
                self.config,
                (embeds.shape[0], embeds.shape[1]),
                embeds.device,
                stream,
                attention_mask=attention_mask,
                chunk_breaks=chunk_breaks,
                document_ids=document_ids,
                num_logits=keep or None,
            )
            hidden, selections = self._run(embeds, plan, stream, retrieval, trace)
            hidden = plan.upper.tokens_from_columns(hidden, keep)
            stream.log.extend(input_ids, plan.chunk_of_token)
            stream.position.move(plan.state)
        output = DRTModelOutput(
            last_hidden_state=hidden,
            document_ids=document_ids,
            hidden_states=trace.ending_with(hidden),
            retrieval=selections if output_retrieval else None,
            **named_cache(stream if stream.remembers else None),
        )
        return in_wanted_form(output, return_dict, self.config)

    @torch.no_grad()
    def encode_chunks(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        chunk_breaks: Tensor | None = None,
        document_ids: Tensor | None = None,
        stream: ReadingStream | None = None,
    ) -> EncodedChunks:
        """Return the landmarks, keys and values of the chunks that a text fills; for inference.

        They depend on the lower decoder and the chunk encoder alone, so nothing else runs: this is
        the quick way to make a memory. See `DRTForCausalLM.forward` for the arguments; a `stream`
        is what a text that comes in segments goes on from.

        Raises:
            ValueError: The model retrieves nothing, or an argument has the wrong shape.
        """
        if self.chunk_encoder is None:
            raise ValueError('A model with retrieval_method="none" has no chunk memory to fill.')
        embeds, here = self._embed(input_ids, None), stream or Stream(self.config)
        plan = plan_call(
            self.config,
            (embeds.shape[0], embeds.shape[1]),
            embeds.device,
            here,
            attention_mask=attention_mask,
            chunk_breaks=chunk_breaks,
            document_ids=document_ids,
            num_logits=1,
        )
        _, _, encoded = self._run_lower(embeds, plan, here, HiddenStates(wanted=False))
        here.position.move(plan.state)
        assert isinstance(encoded, EncodedChunks)  # neither stream keeps chunks
        return encoded

    def _run(
        self,
        embeds: Tensor,
        plan: CallPlan,
        stream: Stream,
        retrieval: Retrieval,
        trace: HiddenStates,
    ) -> tuple[Tensor, tuple[ChunkSelection, ...]]:
        """Run the diagram: embeddings [B, T, E] in, normed columns and what was retrieved out."""
        hidden, context, memory = self._run_lower(embeds, plan, stream, trace)
        hidden = plan.upper_columns(hidden)
        if plan.upper is plan.layout:
            context = replace(context, window=stream.upper_window.begun(plan.upper))
        else:
            context = self._context(plan.upper, stream.upper_window, hidden.dtype)
        selections = []
        for group, last in zip(self.retrieval_groups, stream.last_retrievals, strict=True):
            hidden, selection = group(hidden, plan, memory, last, context, retrieval, trace)
            selections.append(selection)
        return self.norm(hidden), tuple(s for s in selections if s is not None)

    def _run_lower(
        self, embeds: Tensor, plan: CallPlan, stream: Stream, trace: HiddenStates
    ) -> tuple[Tensor, ColumnContext, ChunkSource | None]:
        """Run the half below retrieval: columns [B, L, E], and what can be retrieved."""
        landmark = self.embed_landmark(torch.zeros((), dtype=torch.long, device=embeds.device))
        hidden = plan.layout.columns_from_tokens(embeds, landmark.to(embeds.dtype))  # [B, L, E]
        if self.convolution is not None:
            whole = stream.last_columns.extend(hidden, plan.layout)
            hidden = self.convolution(whole, plan.layout.positions)

        context = self._context(plan.layout, stream.lower_window, hidden.dtype)
        for layer in self.lower_layers:
            hidden = trace.record(layer(hidden, context), plan.layout)
        memory = self._remember(hidden, plan, stream)
        if (
            self.training
            and isinstance(memory, EncodedChunks)
            and not plan.layout.num_finished_chunks
        ):
            # nothing is added, but the encoder takes part: several processes wait for its gradient
            hidden = hidden + (memory.landmarks.sum() + memory.keys.sum() + memory.values.sum())
        return hidden, context, memory

    def _remember(self, hidden: Tensor, plan: CallPlan, stream: Stream) -> ChunkSource | None:
        """Encode the chunks that this call finishes and add them to the memory."""
        if self.chunk_encoder is None:
            return None
        layout = plan.layout
        grid = stream.open_chunk.extend(layout.grid_from_columns(hidden), layout)  # [B, C, S, E]
        if layout.num_finished_chunks == 0 and stream.chunks is not None:
            return stream.chunks  # as for most decoded tokens
        lengths, documents = layout.chunk_lengths, layout.chunk_documents
        landmarks, keys, values = self.chunk_encoder(
            grid[:, : layout.num_finished_chunks],
            lengths if layout.is_ragged else None,
            documents,
            stream.chunk_tail,
        )
        encoded = EncodedChunks(landmarks, documents, keys, values, lengths)
        return stream.append(encoded, plan.finished)

    def _context(
        self, layout: ChunkLayout, window: WindowCache, dtype: torch.dtype
    ) -> ColumnContext:
        config = self.config
        rotation = rotary_angles(layout.positions, config.head_dim, config.rope_theta, dtype)
        return ColumnContext(rotation, layout.documents, window.begun(layout))

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(
                "Pass either input_ids [B, T] or inputs_embeds [B, T, E], not both or neither."
            )
        if input_ids is not None:
            check_ids("input_ids", input_ids, self.config.vocab_size)
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        device_type = embeds.device.type
        if torch.is_autocast_enabled(device_type):
            # the stream between the layers too, or every layer would move twice the bytes
            embeds = embeds.to(torch.get_autocast_dtype(device_type))
        if embeds.dim() != 3 or embeds.shape[1] == 0:
            raise ValueError(
                f"input_ids must be [B, T] with at least one token, got {list(embeds.shape[:-1])}."
            )
        return embeds

    def _stream(self, past: DRTCache | None, use_cache: bool | None) -> Stream:
        if use_cache is None:
            use_cache = self.config.use_cache and not torch.is_grad_enabled()
        if past is None and not use_cache:
            return Stream(self.config)
        if self.training and torch.is_grad_enabled():
            if past is None and self._is_checkpointing():
                logger.warning_once("Gradient checkpointing keeps no cache: use_cache=False.")
                return Stream(self.config)
            logger.warning_once("Gradients do not flow into a cache; train without use_cache.")
        if past is None:
            return DRTCache(self.config)
        check_same_sizes(past.config, self.config)
        return past

    def _is_checkpointing(self) -> bool:
        """Say whether layers will run again, which a cache cannot take back."""
        layers = (m for m in self.modules() if hasattr(m, "gradient_checkpointing"))
        return any(layer.gradient_checkpointing for layer in layers)

    def _default_retrieval(self) -> Retrieval:
        noise = self.config.retrieval_noise if self.training else "none"
        return Retrieval(self.config.retrieval_top_k, noise)
