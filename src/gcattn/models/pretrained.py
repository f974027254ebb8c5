"""What transformers asks of the model's classes: loading, starting, resizing.

Weights that are not those of the configuration are refused. The initial weights of a module may
depend on other modules (see `initialization`).
"""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers.modeling_utils import PreTrainedModel

from gcattn.models.configuration_drt import DRTConfig
from gcattn.models.initialization import (
    align_cross_attention,
    align_embeddings,
    align_retrievers,
    initialize_module,
    quiet_layers,
)
from gcattn.models.token_ids import check_special_ids
from gcattn.nn.chunk_encoder import ChunkEncoder
from gcattn.nn.decoder_layer import RetrievalDecoderLayer
from gcattn.nn.retriever import Retriever

# names that tensors of output layers begin with
HEADS = ("lm_head.", "score.")


def check_loading_report(report: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of the configuration; heads may differ.

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
    _no_split_modules = [  # noqa: RUF012
        "DecoderLayer",
        "RetrievalDecoderLayer",
        "RecurrentDecoderLayer",
        "EncoderLayer",
    ]
    _skip_keys_device_placement = ["cache", "past_key_values"]  # noqa: RUF012
    _is_stateful = True
    _can_compile_fullgraph = False
    _supports_sdpa = True

    def post_init(self) -> None:
        """Finish the construction."""
        super().post_init()
        # FSDP refuses the name of a layer that this model has not
        present = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = [name for name in self._no_split_modules if name in present]

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Change the size of the vocabulary; see transformers for the arguments.

        Raises:
            ValueError: A special token of the configuration would be left outside.
        """
        if new_num_tokens is not None:
            multiple = pad_to_multiple_of or 1
            check_special_ids(self.config, -(-new_num_tokens // multiple) * multiple)
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as transformers does, but refuse weights that are not those of the configuration.

        Raises:
            ValueError: The file holds tensors that would be ignored, or lacks some of the decoder.
        """
        wanted = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if wanted:  # a caller who asks for the report checks it
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
        """Initialize every weight that was not loaded, then align the modules."""
        # aligning involves several modules, and `_init_weights` never sees one that holds them all
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
