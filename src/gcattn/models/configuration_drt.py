"""Configuration of the Differentiable Retrieval-based Transformer (DRT).

This file must not use `from __future__ import annotations`: transformers reads the field types at
run time to check what users pass.

Shapes: S slots per chunk, W window, K retrieved chunks, R retrieval groups, E hidden size.
"""

from collections.abc import Iterable
from dataclasses import field
from difflib import get_close_matches
from functools import wraps
from math import isfinite
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig
from transformers.generation import GenerationConfig
from transformers.utils import logging

from gcattn.models import estimates
from gcattn.models.remote_code import write_remote_code
from gcattn.models.token_ids import check_special_ids

logger = logging.get_logger(__name__)

RetrievalMethod = Literal["learned", "random", "fixed", "off", "none"]
RetrievalServes = Literal["next_chunk", "from_landmark"]
ResidualWiring = Literal["bypass", "ordinary"]

# fields that may be left out: None until construction fills them in from other fields
if TYPE_CHECKING:
    DerivedInt = int
else:
    DerivedInt = int | None


def _raise_value_errors(config_class: type) -> type:
    """Let a bad field raise ValueError, like every other bad input of this package."""
    initialize = config_class.__init__  # type: ignore[misc]

    @wraps(initialize)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            initialize(self, *args, **kwargs)
        except StrictDataclassError as error:
            raise ValueError(str(error.__cause__ or error)) from error

    config_class.__init__ = checked  # type: ignore[misc]
    return config_class


@_raise_value_errors
@strict
class DRTConfig(PreTrainedConfig):
    """Sizes and choices of a DRT; the defaults are those of the paper's 128M model.

    Args:
        vocab_size: Number of token ids, of the tokenizer and of the logits. The landmark is not one
            of them: it has an embedding of its own.
        hidden_size: E.
        intermediate_size: Width of the feed-forward blocks.
        num_attention_heads: Query heads H.
        num_key_value_heads: Key/value heads G of self-attention and chunk pool; by default H.
        head_dim: D; by default hidden_size / H.
        num_lower_layers: Layers before retrieval.
        num_upper_layers: Layers that read retrieved chunks, a multiple of `num_retrieval_groups`.
        num_encoder_layers: Bidirectional layers of the chunk encoder; without any, landmarks, keys
            and values are made of the lower decoder's output (the paper's ablation).
        num_retrieval_groups: R, retrievals per chunk; each serves its share of the upper layers.
        cross_attention_interval: Every n-th upper layer reads what was retrieved, counted back from
            the last of each group, which always reads; in the paper all do (1).
        chunk_size: S, slots per chunk: S - 1 tokens and the landmark.
        retrieval_top_k: K, chunks retrieved per chunk and group.
        window_size: W, columns that self-attention sees, its own included.
        self_attention: "window", the last W columns, or "landmark", a peer: Landmark Attention, in
            which every token reads all earlier chunks through their landmarks. It needs
            `retrieval_method` to be "none".
        landmark_top_k: With "landmark" attention, the chunks that each token reads in each head; by
            default all, as in training.
        num_recurrent_states: State vectors of the Block-Recurrent Transformer, a peer: they carry
            the past from chunk to chunk through the last lower layer. 0: none. That paper has 512,
            as many as slots in a chunk. It needs `retrieval_method` to be "none".
        retrieval_method: "learned": trained by the language-model loss; "random": random chunks
            (the paper's ablation); "fixed": a peer, in which a text encoder that does not learn
            compares chunks; "off": the weights of a DRT, but nothing is retrieved, which shows what
            retrieval is worth; "none": no chunk encoder and no cross-attention, a sliding-window
            Transformer.
        fixed_retriever: Folder of the text encoder of "fixed" retrieval, or its name on the hub;
            scores are cosines divided by `retrieval_temperature`.
        retrieval_noise: Noise on the scores while training, "gumbel" or "none".
        retrieval_serves: "next_chunk" (the paper's): what chunk c retrieved is read by chunk c + 1;
            "from_landmark": the landmark of chunk c reads it already.
        chunk_mixing: "separate" (the paper's): each retrieved chunk is attended on its own, then
            mixed by retrieval weight; "joint": one softmax over all retrieved slots, with the
            logarithm of the chunk's weight added to its logits; "both": half of the heads do the
            one, half the other, for which `num_key_value_heads` must be even.
        softmax_off_by_one: Add 1 to the softmax denominators of cross-attention, so that a token
            may attend to nothing; on for language modelling, off for needle tuning (paper,
            appendix).
        sink_logit: `softmax_off_by_one` adds exp(sink_logit), by default the paper's 1. 64 slots
            that match nothing add up to about a hundred, so a sink above that and below what a
            match adds up to (6 in gcattn-12m) keeps out chunks without a match.
        residual_wiring: "bypass" (the paper's): what is read feeds the MLP only; "ordinary": it
            enters the residual stream.
        cross_attention_init: "aligned": embeddings dominate the stream, with or without retrieval,
            and cross-attention starts as content matching and copying, from which retrieval can
            learn; "plain": all maps start at random.
        initial_score_scale: With "aligned", the retriever's scores start as this multiple of the
            cosine of query and landmark: large enough to prefer the better chunks, small enough to
            leave the others some weight.
        retrieval_temperature: The retriever's scores are divided by it; below 1 the better chunks
            get more of the weight.
        embedding_convolution_size: Columns whose embeddings are mixed, channel by channel, into
            what enters the decoder: a column's own and those before it. In the paper 1.
        key_convolution_size: Slots that are mixed, channel by channel, into a key: its own and
            those before it in the chunk; before the first slot comes the last token of the chunk
            before. In the paper 1.
        landmark_pooling: Pool landmarks from all slots of their chunk, by attention that starts as
            the mean; the paper takes the encoder's output at the landmark alone.
        landmark_overlap: With `landmark_pooling`, how many of the last tokens of the chunk before
            are pooled too.
        rope_theta: Base of the rotary positions.
        rms_norm_eps: Added to the variance in every norm.
        initializer_range: Standard deviation of the random start.
        memory_tier: Where generation keeps the keys and values of past chunks: "device"; "host",
            in host memory; "host-int8", there in 8 bits; "disk"; or "recompute", which keeps only
            token ids and makes them again.
        use_cache: Return a cache when no gradients are recorded.

    Raises:
        ValueError: A field has the wrong type, or fields do not fit each other.
    """

    model_type = "drt"
    keys_to_ignore_at_inference = ["cache", "past_key_values", "retrieval"]  # noqa: RUF012

    vocab_size: int = 16_383
    hidden_size: int = 768
    intermediate_size: int = 2048
    num_attention_heads: int = 12
    num_key_value_heads: DerivedInt = None  # type: ignore[assignment]
    head_dim: DerivedInt = None  # type: ignore[assignment]
    num_lower_layers: int = 6
    num_upper_layers: int = 6
    num_encoder_layers: int = 2
    num_retrieval_groups: int = 1
    cross_attention_interval: int = 1
    chunk_size: int = 64
    retrieval_top_k: int = 8
    window_size: int = 512
    self_attention: Literal["window", "landmark"] = "window"
    landmark_top_k: int | None = None
    num_recurrent_states: int = 0
    retrieval_method: RetrievalMethod = "learned"
    fixed_retriever: str | None = None
    retrieval_noise: Literal["gumbel", "none"] = "gumbel"
    retrieval_serves: RetrievalServes = "next_chunk"
    chunk_mixing: Literal["separate", "joint", "both"] = "separate"
    softmax_off_by_one: bool = True
    sink_logit: float | int = 0.0
    residual_wiring: ResidualWiring = "bypass"
    cross_attention_init: Literal["aligned", "plain"] = "aligned"
    initial_score_scale: float | int = 4.0
    retrieval_temperature: float | int = 1.0
    embedding_convolution_size: int = 1
    key_convolution_size: int = 1
    landmark_pooling: bool = False
    landmark_overlap: int = 0
    rope_theta: float | int = 10_000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    memory_tier: Literal["device", "host", "host-int8", "disk", "recompute"] = "device"
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    # filled in when a model is saved; libraries read it without asking whether it is there
    auto_map: dict = field(default_factory=dict)

    def __post_init__(self, **kwargs: Any) -> None:
        if "landmark_token_id" in kwargs:
            raise ValueError(
                "landmark_token_id is no field any more: the landmark has an embedding of its own, "
                "outside the vocabulary. Leave it out; a model that was saved with it is rewritten "
                "by `python -m gcattn.models.landmark_migration FOLDER NEW_FOLDER`."
            )
        for name in _unknown(kwargs):
            raise ValueError(f"DRTConfig has no field {name!r}{_hint(name) or '.'}")
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None and self.num_attention_heads > 0:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a configuration from what a file says, and keep what others wrote into it.

        Keys that are not fields may be notes of users or of other libraries: they become attributes
        and are saved again. One that looks like a misspelt field gets a warning.

        Raises:
            ValueError: A value is refused, or one of `kwargs` is a misspelt field.
        """
        for name in _unknown(kwargs):
            if hint := _hint(name):
                raise ValueError(f"DRTConfig has no field {name!r}{hint}")
        notes = {name: config_dict[name] for name in _unknown(config_dict)}
        for name in notes:
            if hint := _hint(name):
                logger.warning("The configuration has no field %r%s", name, hint)
        known = {name: value for name, value in config_dict.items() if name not in notes}
        elsewhere = GenerationConfig()  # where transformers looks for these today
        notes = {name: value for name, value in notes.items() if not hasattr(elsewhere, name)}
        made = super().from_dict(known, **kwargs)
        config = made[0] if isinstance(made, tuple) else made
        for name, value in notes.items():
            setattr(config, name, value)
        return made

    def save_pretrained(
        self, save_directory: str | PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Save as transformers does, with the file that `trust_remote_code=True` runs."""
        self.auto_map = write_remote_code(save_directory)
        super().save_pretrained(save_directory, push_to_hub, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Do nothing: the class is in an installed package, and no copy of it is saved."""

    @property
    def num_hidden_layers(self) -> int:
        """Decoder layers, lower and upper; the chunk encoder's come on top."""
        return self.num_lower_layers + self.num_upper_layers

    def validate_sizes(self) -> None:
        """Check that sizes are positive and fit each other."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most:,}, got {getattr(self, name)}.")
        if self.chunk_mixing == "both" and self.num_key_value_heads % 2:
            raise ValueError(
                'chunk_mixing="both" gives each way half of the heads: num_key_value_heads must be '
                f"even, got {self.num_key_value_heads}."
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads = {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads = {self.num_key_value_heads}."
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {self.head_dim}.")
        if self.num_upper_layers % self.num_retrieval_groups:
            raise ValueError(
                f"num_upper_layers = {self.num_upper_layers} must be a multiple of "
                f"num_retrieval_groups = {self.num_retrieval_groups}."
            )
        if self.key_convolution_size > self.chunk_size:
            raise ValueError(
                f"key_convolution_size must be at most chunk_size = {self.chunk_size}, "
                f"got {self.key_convolution_size}."
            )
        if self.landmark_overlap >= self.chunk_size or self.landmark_overlap < 0:
            raise ValueError(
                "landmark_overlap must be at least 0 and less than chunk_size = "
                f"{self.chunk_size}, got {self.landmark_overlap}."
            )
        if self.self_attention == "landmark" and self.retrieval_method != "none":
            raise ValueError(
                'self_attention = "landmark" is a peer of retrieval: retrieval_method must be '
                f'"none", got {self.retrieval_method!r}.'
            )
        if self.num_recurrent_states:
            fits = ("none", "next_chunk", "window")
            got = (self.retrieval_method, self.retrieval_serves, self.self_attention)
            if got != fits:
                raise ValueError(
                    "num_recurrent_states is a peer of retrieval: it needs retrieval_method, "
                    f"retrieval_serves, self_attention = {', '.join(fits)}, got {', '.join(got)}."
                )
        if self.landmark_top_k is not None and self.landmark_top_k < 1:
            raise ValueError(
                f"landmark_top_k must be at least 1, or None for all, got {self.landmark_top_k}."
            )
        if self.landmark_overlap and not self.landmark_pooling:
            raise ValueError(
                f"landmark_overlap = {self.landmark_overlap} needs landmark_pooling: without it a "
                "landmark is what its own slot holds."
            )
        if self.landmark_pooling and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"landmark_pooling needs a hidden_size that num_attention_heads = "
                f"{self.num_attention_heads} divides, got {self.hidden_size}."
            )
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}.")
        if not isfinite(self.sink_logit):
            raise ValueError(f"sink_logit must be finite, got {self.sink_logit}.")

    def validate_token_ids(self) -> None:
        """Check that special tokens are ids of the vocabulary."""
        check_special_ids(self, self.vocab_size)

    @property
    def num_reading_layers(self) -> int:
        """Upper layers with cross-attention."""
        if self.retrieval_method == "none":
            return 0
        per_group = self.num_upper_layers // self.num_retrieval_groups
        return self.num_retrieval_groups * -(-per_group // self.cross_attention_interval)

    def count_parameters(self, *, embeddings: bool = True) -> int:
        """Return the exact number of parameters, with or without the token embeddings."""
        return estimates.count_parameters(self, embeddings=embeddings)

    def flops_per_token(self, *, training: bool = True) -> int:
        """Return floating-point operations per token, three times the forward's when training.

        Apart from the scan of the landmarks they do not depend on the context length.
        """
        return estimates.flops_per_token(self, training=training)

    def memory_bytes_per_token(self, bytes_per_value: int = 2) -> dict[str, float]:
        """Return bytes of chunk memory per token of context: landmarks, and keys and values."""
        return estimates.memory_bytes_per_token(self, bytes_per_value)


def _unknown(names: Iterable[str]) -> list[str]:
    """Return the names that are neither fields nor known to transformers."""
    # names of transformers' own bookkeeping begin with an underscore
    return [
        name
        for name in names
        if not (name.startswith("_") or name in _ACCEPTED or hasattr(DRTConfig, name))
        and name not in DRTConfig.__dataclass_fields__
    ]


def _hint(name: str) -> str:
    close = get_close_matches(name, DRTConfig.__dataclass_fields__, n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""


# what transformers accepts besides fields and handles itself
_ACCEPTED = frozenset(
    {"attn_implementation", "experts_implementation", "landmark_token_id", "return_unused_kwargs"}
)

# beyond these, buffers whose size they decide overflow before a model is of any use
_MOST = {
    "retrieval_top_k": 2**16,
    "window_size": 2**24,
    "chunk_size": 2**24,
    "num_recurrent_states": 2**16,
}
_LEAST = {
    "vocab_size": 2,
    "hidden_size": 1,
    "intermediate_size": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 2,
    "num_lower_layers": 1,
    "num_upper_layers": 1,
    "num_encoder_layers": 0,
    "num_recurrent_states": 0,
    "num_retrieval_groups": 1,
    "cross_attention_interval": 1,
    "chunk_size": 2,
    "retrieval_top_k": 1,
    "window_size": 1,
    "embedding_convolution_size": 1,
    "key_convolution_size": 1,
}
_POSITIVE = (
    "initial_score_scale",
    "retrieval_temperature",
    "rope_theta",
    "rms_norm_eps",
    "initializer_range",
)
