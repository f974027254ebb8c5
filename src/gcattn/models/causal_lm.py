"""A DRT with a language-model head: plain token ids in, next-token logits and loss out.

Shapes: B batch, T tokens, E hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gcattn.chunking import IGNORED, next_token_labels
from gcattn.memory.cache import DRTCache
from gcattn.models.cache_name import CACHE_NAME, named_cache
from gcattn.models.call_plan import CallPlan
from gcattn.models.configuration_drt import DRTConfig
from gcattn.models.defaults import in_wanted_form
from gcattn.models.generation import DRTGenerationMixin
from gcattn.models.head_loss import is_plain_linear, summed_loss
from gcattn.models.modeling_drt import DRTModel
from gcattn.models.outputs import DRTCausalLMOutput
from gcattn.models.pretrained import DRTPreTrainedModel
from gcattn.models.token_ids import check_ids
from gcattn.nn.projections import project
from gcattn.nn.retriever import Retrieval


class DRTForCausalLM(DRTPreTrainedModel, DRTGenerationMixin):
    """DRT with a language-model head: plain token ids in, next-token logits and loss out."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: DRTConfig) -> None:
        super().__init__(config)
        self.model = DRTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DRTCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_logits: bool = True,
        chunk_breaks: Tensor | None = None,
        document_ids: Tensor | None = None,
        retrieval: Retrieval | None = None,
        output_retrieval: bool = False,
        output_hidden_states: bool | None = None,
        cache: DRTCache | None = None,
        shift_labels: Tensor | None = None,
        plan: CallPlan | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> DRTCausalLMOutput | tuple[Any, ...]:
        """Predict the token after every token; landmarks are inserted and removed inside.

        Args:
            input_ids: Plain token ids, [B, T]; with a cache, the tokens after those it holds.
            attention_mask: 0 where a token is padding, [B, T] or longer (its last T columns count);
                padding may be on either side and changes nothing.
            position_ids: A document begins where they restart, which is how collators that pack
                without padding mark it; otherwise positions follow from the layout, and gaps are
                refused.
            past_key_values: A `DRTCache`; it is extended in place.
            inputs_embeds: Embeddings in place of ids, [B, T, E].
            labels: Ids to predict, [B, T], not shifted; -100 where there is no loss. Any other
                number outside the vocabulary is refused (on a GPU, where a check would mean
                waiting, the loss becomes NaN).
            use_cache: Return a cache; on by default when no gradients are recorded.
            logits_to_keep: Compute logits only for this many last tokens (0: all); the upper
                decoder then reads no more than its receptive field.
            return_logits: False: with `labels`, return the loss only; the logits of all tokens are
                then never in memory, which makes training faster and longer rows possible.
            chunk_breaks: True where the chunk closes after this token, bool [B, T].
            document_ids: Document of each token, [B, T]: packed documents do not see each other.
            retrieval: How to retrieve in this call; by default with the configuration's top-k, and
                with its noise while training.
            output_retrieval: Return what every landmark retrieved.
            output_hidden_states: Return the hidden states of the tokens after every layer; by
                default the configuration decides.
            cache: The same as `past_key_values`, by the name that transformers 5.24 gave it.
            shift_labels: The id that each token predicts, [B, T], in place of `labels`: for labels
                that were shifted before rows were cut.
            plan: What `plan_ahead` returned for these breaks and documents, in place of
                `chunk_breaks`; for calls without a cache.
            return_dict: False: return a tuple; by default the configuration decides.
            **kwargs: `num_items_in_batch`, the number of labels that the loss is divided by;
                `seq_idx` or `cu_seq_lens_q`, by which other collators mark documents; and arguments
                that only ask for the default.

        Returns:
            Loss, logits [B, T, V], cache; see `DRTCausalLMOutput`.

        Raises:
            ValueError: An argument has the wrong shape, or is not one of these.
        """
        num_items = kwargs.pop("num_items_in_batch", None)
        learns = labels is not None or shift_labels is not None
        if not learns and not return_logits:
            raise ValueError(
                "return_logits=False needs labels: without them there is nothing to return."
            )
        for wanted in (labels, shift_labels):
            if wanted is not None:
                check_ids("labels", wanted, self.config.vocab_size)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            logits_to_keep=0 if learns else logits_to_keep,
            chunk_breaks=chunk_breaks,
            document_ids=document_ids,
            retrieval=retrieval,
            output_retrieval=output_retrieval,
            output_hidden_states=output_hidden_states,
            cache=cache,
            plan=plan,
            return_dict=True,
            **kwargs,
        )
        hidden = output.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self._logits(hidden[:, kept]) if return_logits else None
        loss = None
        if learns:
            targets = shift_labels
            if targets is None:
                assert labels is not None
                valid = None if attention_mask is None else attention_mask[:, -labels.shape[1] :]
                targets = next_token_labels(labels, valid, output.document_ids)
            is_whole = isinstance(logits_to_keep, int) and logits_to_keep == 0
            whole = logits if is_whole else None
            loss = self._loss(hidden, targets, whole, num_items)
        result = DRTCausalLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            retrieval=output.retrieval,
            **named_cache(getattr(output, CACHE_NAME)),
        )
        return in_wanted_form(result, return_dict, self.config)

    def generate_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse continuous batching.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "Continuous batching keeps keys and values in pages, and a DRT keeps chunks; pass "
            "generate() a batch with an attention_mask, its rows may be of any length."
        )

    init_continuous_batching = continuous_batching_context_manager = generate_batch

    def _logits(self, hidden: Tensor) -> Tensor:
        # a GPU's libraries read a large weight at full speed by themselves
        logits: Tensor = project(hidden, self.lm_head)[0] if hidden.is_cpu else self.lm_head(hidden)
        return logits

    def _loss(
        self,
        hidden: Tensor,
        targets: Tensor,
        logits: Tensor | None,
        num_items: Tensor | int | None,
    ) -> Tensor:
        """Return the mean loss of the targets [B, T], or their sum over `num_items`."""
        items = (targets != IGNORED).sum() if num_items is None else torch.as_tensor(num_items)
        if is_plain_linear(self.lm_head):
            logits = None
        elif logits is None:
            logits = self.lm_head(hidden)
        # without a label there is no loss, rather than 0 / 0
        return self._summed_loss(hidden, targets, logits) / items.clamp_min(1)

    def _summed_loss(self, hidden: Tensor, targets: Tensor, logits: Tensor | None) -> Tensor:
        return summed_loss(self.lm_head, hidden, targets, logits)
