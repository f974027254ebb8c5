"""Generation with transformers' `generate`: greedy, sampling, beams, streaming, turn after turn.

A prompt's open chunk is closed in front of its last token, so the first generated token is
predicted with a fresh retrieval whatever the prompt's length. `generate(..., close_prompt=False)`
keeps the paper's fixed grid.

Shapes: B batch, T tokens.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.generation import GenerationMixin

from gcattn.chunking import prompt_breaks
from gcattn.memory.cache import DRTCache
from gcattn.memory.stream import Stream
from gcattn.models.cache_name import CACHE_NAME, given_cache

if TYPE_CHECKING:
    from transformers.generation import GenerationConfig


class DRTGenerationMixin(GenerationMixin):
    """What `generate` has to know about chunks and their cache."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate as transformers does; if it fails, a given cache is as it was before.

        Args:
            *args: As in transformers.
            **kwargs: As in transformers; `cache` or `past_key_values` goes on from a `DRTCache`,
                `close_prompt=False` keeps the paper's fixed grid.
        """
        given = given_cache(kwargs.get("cache"), kwargs.get("past_key_values"))
        stream = Stream(self.config) if given is None else given
        with stream.call():
            return super().generate(*args, **kwargs)

    def _prepare_cache_for_generation(
        self, generation_config: "GenerationConfig", model_kwargs: dict[str, Any], *args: Any
    ) -> None:
        given = given_cache(
            model_kwargs.pop("cache", None), model_kwargs.pop("past_key_values", None)
        )
        if given is not None:
            given._is_user_defined = True
            model_kwargs[CACHE_NAME] = given
            return
        if generation_config.use_cache is False:
            return
        implementation = generation_config.cache_implementation
        if implementation not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation={implementation!r} does not fit a DRT; leave it out; set "
                'config.memory_tier or pass cache=DRTCache(config, memory_tier="host").'
            )
        model_kwargs[CACHE_NAME] = DRTCache(self.config)

    def _prefill(
        self,
        input_ids: Tensor,
        generation_config: "GenerationConfig",
        model_kwargs: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        # decided here, where the prompt is whole: a long one is forwarded in pieces
        close_prompt = model_kwargs.pop("close_prompt", True)
        if close_prompt and model_kwargs.get("chunk_breaks") is None:
            mask = model_kwargs.get("attention_mask")
            embeds = model_kwargs.get("inputs_embeds")
            whole = input_ids if embeds is None else embeds[..., 0]
            cache = model_kwargs.get(CACHE_NAME)
            past = 0 if cache is None else cache.get_seq_length()
            if mask is not None:
                mask = mask.bool()
            elif past < whole.shape[1]:
                mask = torch.ones_like(whole, dtype=torch.bool)
            else:  # only the new tokens came
                mask = F.pad(torch.ones_like(whole, dtype=torch.bool), (past, 0), value=False)
            new = mask.clone()
            new[:, :past] = False  # what the cache holds is never closed again
            model_kwargs["chunk_breaks"] = prompt_breaks(new)
        return super()._prefill(input_ids, generation_config, model_kwargs, *args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        chunk_breaks: Tensor | None = None,
        close_prompt: bool = True,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Cut what `generate` holds to the tokens that the cache has not seen.

        Args:
            input_ids: All ids, or the new ones only, [B, T].
            next_sequence_length: Take the last so many columns.
            attention_mask: 0 where a token is padding, over everything seen and new.
            inputs_embeds: Embeddings of the prompt, used once.
            is_first_iteration: Whether the prompt is being read.
            chunk_breaks: Where chunks close, over everything seen and new, bool.
            close_prompt: Close the prompt's open chunk in front of its last token.
            position_ids: Ignored; positions follow from the layout.
            **kwargs: Passed on to `forward`, the cache among them.

        Returns:
            Arguments of `forward`.
        """
        inputs = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        given = inputs["inputs_embeds"] if inputs.get("input_ids") is None else inputs["input_ids"]
        num_new = given.shape[1]
        cache = inputs.get(CACHE_NAME)
        past = 0 if cache is None else cache.get_seq_length()
        if chunk_breaks is not None:
            missing = past + num_new - chunk_breaks.shape[1]
            breaks = F.pad(chunk_breaks, (0, max(missing, 0)))[:, past : past + num_new]
            inputs["chunk_breaks"] = breaks if bool(breaks.any()) else None
        return inputs
