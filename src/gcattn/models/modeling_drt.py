"""The Differentiable Retrieval-based Transformer: the lines of `DRTModel.forward` are the diagram.

tokens ─ columns ─ lower decoder ─┬─ chunk encoder ─ memory
                                  └─ for each group: retriever ─ upper decoder ─ norm ─ tokens

Shapes: B batch, T tokens, L columns, C chunks touched, F chunks finished, S slots per chunk,
K retrieved chunks, E hidden size, V vocabulary, R retrieval groups.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from gcattn.chunking import ChunkLayout, RegularLayout
from gcattn.memory.cache import DRTCache
from gcattn.memory.chunk_memory import ChunkSource, EncodedChunks
from gcattn.models.cache_name import given_cache, named_cache
from gcattn.models.call_plan import CallPlan, plan_call
from gcattn.models.configuration_drt import DRTConfig
from gcattn.models.initialization import (
    align_cross_attention,
    align_embeddings,
    align_retrievers,
    initialize_module,
    quiet_layers,
)
from gcattn.models.outputs import DRTModelOutput
from gcattn.models.retrieval_group import RetrievalGroup
from gcattn.nn.chunk_encoder import ChunkEncoder
from gcattn.nn.convolution import ColumnConvolution
from gcattn.nn.decoder_layer import DecoderLayer, RetrievalDecoderLayer
from gcattn.nn.retriever import Retriever
from gcattn.nn.rms_norm import RMSNorm
from gcattn.nn.rotary import rotary_angles
from gcattn.nn.self_attention import ColumnContext
from gcattn.ops.chunk_topk import ChunkSelection, RetrievalNoise

logger = logging.get_logger(__name__)


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

    def _init_weights(self, module: nn.Module) -> None:
        initialize_module(module, self.config.initializer_range)

    def initialize_weights(self) -> None:
        """Give every weight that was not loaded its start, then align the modules."""
        # aligning joins several modules; `_init_weights` is never given one that holds them all
        model = self.base_model
        is_new = not getattr(model.norm, "_is_hf_initialized", False)
        super().initialize_weights()
        if not is_new or self.config.cross_attention_init != "aligned":
            return
        embeddings: nn.Embedding = model.embed_tokens  # type: ignore[assignment]
        quiet_layers(self, self.config.initializer_range)
        align_embeddings(embeddings, self.config.landmark_token_id)
        encoder: ChunkEncoder | None = model.chunk_encoder  # type: ignore[assignment]
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
        past_key_values: DRTCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        chunk_breaks: Tensor | None = None,
        document_ids: Tensor | None = None,
        retrieval_noise: RetrievalNoise | None = None,
        retrieval_top_k: int | None = None,
        output_retrieval: bool = False,
        output_hidden_states: bool | None = None,
        cache: DRTCache | None = None,
    ) -> DRTModelOutput:
        """Run the decoder over plain tokens; see `DRTForCausalLM.forward` for the arguments.

        Returns:
            `last_hidden_state` of the tokens, [B, T, E], or of the last `logits_to_keep`.
        """
        embeds = self._embed(input_ids, inputs_embeds)
        cache = self._cache(given_cache(cache, past_key_values), use_cache)
        if retrieval_noise is None:
            retrieval_noise = self.config.retrieval_noise if self.training else "none"
        top_k = self.config.retrieval_top_k if retrieval_top_k is None else retrieval_top_k
        keep = 0
        if isinstance(logits_to_keep, int) and not (output_hidden_states or output_retrieval):
            keep = min(logits_to_keep, embeds.shape[1])
        plan = plan_call(
            self.config,
            (embeds.shape[0], embeds.shape[1]),
            embeds.device,
            attention_mask=attention_mask[:, -embeds.shape[1] :]
            if attention_mask is not None
            else None,
            chunk_breaks=chunk_breaks,
            document_ids=document_ids,
            state=None if cache is None else cache.state,
            remembers=cache is not None,
            num_logits=keep or None,
        )
        landmark = self.embed_tokens.weight[self.config.landmark_token_id]
        hidden = plan.layout.columns_from_tokens(embeds, landmark.to(embeds.dtype))  # [B, L, E]
        trace = [plan.layout.tokens_from_columns(hidden)] if output_hidden_states else None
        if self.convolution is not None:
            hidden = self._convolve(hidden, plan.layout, cache)

        context = self._context(plan.layout, hidden, None if cache is None else cache.lower_window)
        for layer in self.lower_layers:
            hidden = layer(hidden, context)
            _record(trace, plan.layout, hidden)
        memory = self._remember(hidden, plan, cache)

        upper_window = None if cache is None else cache.upper_window
        if plan.upper is not plan.layout or upper_window is not None:
            context = self._context(plan.upper, hidden, upper_window)
        if plan.num_upper_columns is not None:
            assert isinstance(plan.layout, ChunkLayout)  # a regular one is never cut
            hidden = plan.layout.tail_columns(hidden, plan.num_upper_columns)
        retrieval: list[ChunkSelection] = []
        for index, group in enumerate(self.retrieval_groups):
            hidden, selection, serving = group(
                hidden,
                plan,
                memory,
                context,
                serving=None if cache is None else cache.serving[index],
                top_k=top_k,
                noise=retrieval_noise,
                trace=trace,
            )
            if cache is not None:
                cache.serving[index] = serving
            if selection is not None:
                retrieval.append(selection)

        hidden = self.norm(hidden)
        hidden = plan.upper.tokens_from_columns(hidden, keep)
        if trace is not None:
            trace[-1] = hidden
        if cache is not None:
            cache.state = plan.state
            cache.num_tokens += embeds.shape[1]
        return DRTModelOutput(
            last_hidden_state=hidden,
            hidden_states=None if trace is None else tuple(trace),
            retrieval=tuple(retrieval) if output_retrieval else None,
            **named_cache(cache),
        )

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(
                "Pass either input_ids [B, T] or inputs_embeds [B, T, E], not both or neither."
            )
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

    def _cache(self, past: DRTCache | None, use_cache: bool | None) -> DRTCache | None:
        if use_cache is None:
            use_cache = self.config.use_cache and not torch.is_grad_enabled()
        if past is not None or use_cache:
            if self.training and torch.is_grad_enabled():
                logger.warning_once("Gradients do not flow into a cache; train without use_cache.")
            return DRTCache(self.config) if past is None else past
        return None

    def _context(
        self, layout: ChunkLayout | RegularLayout, hidden: Tensor, window: Any
    ) -> ColumnContext:
        documents = layout.documents
        if window is not None:
            assert isinstance(layout, ChunkLayout)  # a regular one has no next call
            window.begin(documents, all_used=layout.is_full)
        config = self.config
        dtype = hidden.dtype
        rotation = rotary_angles(layout.positions, config.head_dim, config.rope_theta, dtype)
        return ColumnContext(rotation, documents, window)

    def _convolve(
        self, hidden: Tensor, layout: ChunkLayout | RegularLayout, cache: DRTCache | None
    ) -> Tensor:
        assert self.convolution is not None
        before = None if cache is None else cache.last_columns
        if cache is not None:
            assert layout.documents is not None  # a regular layout has no next call
            num_used = (layout.documents >= 0).sum(1)
            cache.last_columns = self.convolution.last_columns(hidden, num_used, before)
        return self.convolution(hidden, layout.positions, before)

    def _remember(
        self, hidden: Tensor, plan: CallPlan, cache: DRTCache | None
    ) -> ChunkSource | None:
        """Encode the chunks that this call finishes and add them to the memory."""
        if self.chunk_encoder is None:
            return None
        layout = plan.layout
        grid = layout.grid_from_columns(hidden)  # [B, C, S, E]
        if cache is not None:
            assert isinstance(layout, ChunkLayout)  # a regular one has no next call
            if cache.open_chunk is not None:  # the slots that earlier calls filled; zero elsewhere
                grid = torch.cat([grid[:, :1] + cache.open_chunk.unsqueeze(1), grid[:, 1:]], dim=1)
            cache.keep_open_chunk(grid, layout.num_finished)
            if layout.num_finished_chunks == 0 and cache.memory.is_ready:
                return cache.memory  # as for most decoded tokens
        lengths, documents = layout.chunk_lengths, layout.chunk_documents
        output = self.chunk_encoder(
            grid[:, : layout.num_finished_chunks],
            None if isinstance(layout, RegularLayout) else lengths,
            documents,
            None if cache is None else cache.chunk_tail,
        )
        encoded = EncodedChunks(output.landmarks, documents, output.keys, output.values, lengths)
        if cache is None:
            return encoded
        assert isinstance(layout, ChunkLayout) and plan.finished is not None
        cache.chunk_tail = output.tail_after(cache.chunk_tail, documents, layout.num_finished)
        return cache.memory.append(encoded, plan.finished)


def _record(
    trace: list[Tensor] | None, layout: ChunkLayout | RegularLayout, hidden: Tensor
) -> None:
    if trace is not None:
        trace.append(layout.tokens_from_columns(hidden))
