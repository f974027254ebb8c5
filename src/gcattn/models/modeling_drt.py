"""The Differentiable Retrieval-based Transformer: the lines of `DRTModel.forward` are the diagram.

tokens ─ columns ─ lower decoder ─┬─ chunk encoder ─ memory
                                  └─ for each group: retriever ─ upper decoder ─ norm ─ tokens

Shapes: B batch, T tokens, L columns, C chunks touched, F chunks finished, S slots per chunk,
K retrieved chunks, E hidden size, V vocabulary, R retrieval groups.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcattn.chunking import ChunkLayout
from gcattn.memory.cache import DRTCache
from gcattn.memory.chunk_source import ChunkSource, EncodedChunks
from gcattn.memory.stream import Stream
from gcattn.memory.window import WindowCache
from gcattn.models.baselines.fixed_retriever import ChunkEmbedder, chunk_embeddings
from gcattn.models.cache_name import given_cache, named_cache
from gcattn.models.call_plan import CallPlan, plan_call
from gcattn.models.call_stream import stream_of_call
from gcattn.models.chunk_encoding import EncodesChunks
from gcattn.models.configuration_drt import DRTConfig
from gcattn.models.defaults import check_defaults, in_wanted_form
from gcattn.models.early_plan import check_plan
from gcattn.models.outputs import DRTModelOutput, HiddenStates
from gcattn.models.packing import PACKING_ARGUMENTS, packed_documents
from gcattn.models.prompt_segment import SegmentGraphs, read_segment
from gcattn.models.retrieval_group import RetrievalGroup
from gcattn.models.token_ids import check_ids
from gcattn.models.token_step import decode_token
from gcattn.nn.chunk_encoder import ChunkEncoder
from gcattn.nn.convolution import ColumnConvolution
from gcattn.nn.decoder_layer import DecoderLayer
from gcattn.nn.recurrent_layer import RecurrentDecoderLayer
from gcattn.nn.retriever import Retrieval
from gcattn.nn.rms_norm import RMSNorm
from gcattn.nn.self_attention import ColumnContext, Recurrence
from gcattn.ops.chunk_topk import ChunkSelection
from gcattn.ops.pointwise import rotary_angles


class DRTModel(EncodesChunks):
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
        if config.num_recurrent_states:
            last = config.num_lower_layers - 1
            self.lower_layers[last] = RecurrentDecoderLayer(config, last)
        retrieves = config.retrieval_method != "none"
        self.chunk_encoder = ChunkEncoder(config) if retrieves else None
        self.retrieval_groups = nn.ModuleList(
            RetrievalGroup(config, r) for r in range(config.num_retrieval_groups)
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.chunk_embedder: ChunkEmbedder | None = None  # of a fixed retriever
        self.segment_graphs = SegmentGraphs()
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
        plan: CallPlan | None = None,
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
        stream = stream_of_call(self, given_cache(cache, past_key_values), use_cache)
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
        is_simple = document_ids is None and plan is None and not wants_more
        if is_simple and embeds.shape[1] == 1 and chunk_breaks is None:
            token = decode_token(
                self, self._run, stream, retrieval, input_ids, embeds, attention_mask
            )
            if token is not None:
                output = DRTModelOutput(last_hidden_state=token, **named_cache(stream))
                return in_wanted_form(output, return_dict, self.config)
        missing = embeds.shape[1] - (0 if chunk_breaks is None else chunk_breaks.shape[1])
        if chunk_breaks is not None and inputs_embeds is not None and missing > 0:
            chunk_breaks = F.pad(chunk_breaks, (missing, 0))  # a soft prompt stands in front
        shape, device = (embeds.shape[0], embeds.shape[1]), embeds.device
        with stream.call():
            if is_simple and attention_mask is None:
                graphs, breaks = self.segment_graphs, chunk_breaks
                read = read_segment(
                    self, self._run, graphs, stream, retrieval, input_ids, embeds, breaks, keep
                )
                if read is not None:
                    output = DRTModelOutput(last_hidden_state=read, **named_cache(stream))
                    return in_wanted_form(output, return_dict, self.config)
            if plan is None:
                plan = plan_call(
                    self.config,
                    shape,
                    device,
                    stream,
                    attention_mask=attention_mask,
                    chunk_breaks=chunk_breaks,
                    document_ids=document_ids,
                    num_logits=keep or None,
                )
            else:
                check_plan(plan, shape, device, stream, attention_mask, chunk_breaks)
            plan = self._with_embeddings(input_ids, plan, stream)
            stream.log.extend(input_ids, plan.chunk_of_token)
            hidden, selections = self._run(embeds, plan, stream, retrieval, trace)
            hidden = plan.upper.tokens_from_columns(hidden, keep)
            stream.position.move(plan.state)
        output = DRTModelOutput(
            last_hidden_state=hidden,
            document_ids=document_ids,
            hidden_states=trace.ending_with(hidden),
            retrieval=selections if output_retrieval else None,
            **named_cache(stream if stream.remembers else None),
        )
        return in_wanted_form(output, return_dict, self.config)

    def _with_embeddings(
        self, input_ids: Tensor | None, plan: CallPlan, stream: Stream
    ) -> CallPlan:
        """Embed the chunks that a call finishes, if the retriever is fixed."""
        if self.config.retrieval_method != "fixed":
            return plan
        embeddings = chunk_embeddings(self.chunk_embedder, input_ids, plan, stream)
        return replace(plan, chunk_embeddings=embeddings)

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
        if self.config.num_recurrent_states:
            states = stream.recurrent_states, stream.recurrent_open_chunk
            context = replace(context, recurrence=Recurrence(plan.layout, plan.blocks, *states))
        for layer in self.lower_layers:
            hidden = trace.record(layer(hidden, context), plan.layout)
        memory = self._remember(hidden, plan, stream)
        if (
            self.training
            and isinstance(memory, EncodedChunks)
            and not plan.layout.num_finished_chunks
        ):
            # adds zero, so that the encoder has a gradient, for which other processes wait
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
            is_even=layout.is_even,
        )
        if plan.chunk_embeddings is not None:
            # adds zero, so that what made the landmarks has a gradient: see _run_lower
            landmarks = plan.chunk_embeddings.to(landmarks.dtype) + 0 * landmarks.sum()
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
            # the residual stream too, or every layer would move twice the bytes
            embeds = embeds.to(torch.get_autocast_dtype(device_type))
        if embeds.dim() != 3 or embeds.shape[1] == 0:
            raise ValueError(
                f"input_ids must be [B, T] with at least one token, got {list(embeds.shape[:-1])}."
            )
        return embeds

    def _default_retrieval(self) -> Retrieval:
        noise = self.config.retrieval_noise if self.training else "none"
        return Retrieval(self.config.retrieval_top_k, noise)
