"""A DRT that assigns classes or numbers to whole documents.

Shapes: B batch, T tokens, E hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from gcattn.chunking import prompt_breaks
from gcattn.models.configuration_drt import DRTConfig
from gcattn.models.defaults import check_defaults, in_wanted_form
from gcattn.models.modeling_drt import DRTModel
from gcattn.models.pretrained import DRTPreTrainedModel
from gcattn.nn.retriever import Retrieval


class DRTForSequenceClassification(DRTPreTrainedModel):
    """DRT with a linear head on each row's last token: documents in, a score for each class out."""

    def __init__(self, config: DRTConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels or 2
        self.model = DRTModel(config)
        self.score = nn.Linear(config.hidden_size, self.num_labels, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        chunk_breaks: Tensor | None = None,
        retrieval: Retrieval | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Score each row by its last real token, which closes the chunk before it as a prompt does.

        Args:
            input_ids: Token ids, [B, T].
            attention_mask: 0 where a token is padding, on either side, [B, T]; without it, padding
                is where the configuration's `pad_token_id` stands.
            inputs_embeds: Embeddings in place of ids, [B, T, E].
            labels: Classes [B], numbers [B] or [B, labels]; see `config.problem_type`.
            chunk_breaks: True where the chunk closes after this token, bool [B, T]; without it the
                last token reads what a fresh retrieval found.
            retrieval: How to retrieve in this call.
            output_hidden_states: Return the hidden states of the tokens after every layer.
            return_dict: False: return a tuple.
            **kwargs: Arguments that transformers passes to every model and that only ask for the
                default.

        Returns:
            Loss and logits [B, labels].

        Raises:
            ValueError: An argument does not fit, or a row is all padding.
        """
        check_defaults(kwargs, type(self).__name__)
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None:
            raise ValueError("Pass either input_ids [B, T] or inputs_embeds [B, T, E].")
        valid = self._valid(input_ids, attention_mask, given)
        if bool((valid.sum(1) == 0).any()):
            raise ValueError("A row holds no token: its attention_mask is 0, or it is all padding.")
        output = self.model(
            input_ids=input_ids,
            attention_mask=valid,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            chunk_breaks=prompt_breaks(valid) if chunk_breaks is None else chunk_breaks,
            retrieval=retrieval,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        tokens = torch.arange(valid.shape[1], device=valid.device)
        last = (tokens * valid).argmax(1)
        rows = torch.arange(valid.shape[0], device=valid.device)
        logits = self.score(output.last_hidden_state[rows, last])  # [B, labels]
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        result = SequenceClassifierOutputWithPast(
            loss=loss, logits=logits, hidden_states=output.hidden_states
        )
        return in_wanted_form(result, return_dict, self.config)

    def _valid(self, ids: Tensor | None, mask: Tensor | None, given: Tensor) -> Tensor:
        """Return where real tokens are, bool [B, T]."""
        if mask is not None:
            return mask.bool()
        if ids is not None and self.config.pad_token_id is not None:
            return ids != self.config.pad_token_id
        return torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
