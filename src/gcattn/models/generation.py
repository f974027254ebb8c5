"""Generation with transformers' `generate`: greedy, sampling, beams, streaming, turn after turn.

A prompt's open chunk is closed before its last token, so the first generated token is
predicted with a fresh retrieval whatever the prompt's length. `generate(..., close_prompt=False)`
keeps the paper's fixed grid.

Shapes: B batch, T tokens, P tokens that the cache has read.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.generation import GenerationMixin, StoppingCriteriaList

from gcattn.memory.cache import DRTCache
from gcattn.memory.stream import Stream
from gcattn.models.cache_name import CACHE_NAME, given_cache, named_cache
from gcattn.models.turn import EndedRows, Turn
from gcattn.models.unread_prompt import unread_prompt

if TYPE_CHECKING:
    from transformers.generation import GenerationConfig


class DRTGenerationMixin(GenerationMixin):
    """What `generate` has to know about chunks and their cache."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate as transformers does; if it fails, a given cache is left as it was.

        With a cache the prompt holds either all tokens or only new ones. It holds all of them if it
        begins with exactly what was read, unless an `attention_mask` of P + T columns says that its
        T tokens are new.

        Args:
            *args: As in transformers.
            **kwargs: As in transformers; `cache` or `past_key_values` continues from a `DRTCache`,
                `close_prompt=False` keeps the paper's fixed grid, `output_retrieval=True` returns
                what was retrieved, one entry for each call as with `output_hidden_states`.
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
            batch_size = args[1]
            copies = max(generation_config.num_beams, generation_config.num_return_sequences)
            if copies > 1 and given.num_rows == batch_size:
                given.batch_repeat_interleave(copies)
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

    def _sample(
        self,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: "GenerationConfig",
        **kwargs: Any,
    ) -> Any:
        cache = kwargs.get(CACHE_NAME)
        turn = Turn(
            ended=EndedRows(stopping_criteria), retrieval=_collects(generation_config, kwargs)
        )
        result = super()._sample(
            input_ids, logits_processor, turn.ended, generation_config, turn=turn, **_known(kwargs)
        )
        if cache is not None:
            turn.note_last(cache, _sequences(result))
        return turn.with_retrieval(result)

    def _beam_search(
        self,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: "GenerationConfig",
        **kwargs: Any,
    ) -> Any:
        cache = kwargs.get(CACHE_NAME)
        turn = Turn(retrieval=_collects(generation_config, kwargs))
        result = super()._beam_search(
            input_ids,
            logits_processor,
            stopping_criteria,
            generation_config,
            turn=turn,
            **_known(kwargs),
        )
        if cache is not None:
            generated = _sequences(result)[:, input_ids.shape[1] :]
            self._read_beams(cache, turn, generated, generation_config)
        return turn.with_retrieval(result)

    def _read_beams(
        self, cache: DRTCache, turn: Turn, generated: Tensor, config: "GenerationConfig"
    ) -> None:
        """Make the cache hold the returned sequences instead of the beams that were alive last.

        Args:
            cache: Its rows are the beams.
            turn: Has the snapshot of the cache after the prompt.
            generated: The returned sequences without the prompt, [B · returned, T].
            config: Says how many there are, and what ends a row.
        """
        assert turn.after_prompt is not None
        cache.roll_back(turn.after_prompt)
        items = torch.arange(len(generated)) // config.num_return_sequences
        cache.reorder_cache(items * config.num_beams)
        valid = torch.ones_like(generated, dtype=torch.bool)
        if config._eos_token_tensor is not None:
            ends = torch.isin(generated, config._eos_token_tensor.to(generated.device))
            valid = ends.cumsum(1) - ends.long() == 0
        if generated.shape[1] > 1:
            read = {"attention_mask": valid[:, :-1], "use_cache": True, "logits_to_keep": 1}
            model: Any = self
            model(input_ids=generated[:, :-1], **read, **named_cache(cache))
        turn.ended = EndedRows(StoppingCriteriaList())
        turn.ended.before_last = ~valid[:, -1]
        turn.note_last(cache, generated)

    def _prefill(
        self,
        input_ids: Tensor,
        generation_config: "GenerationConfig",
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> Any:
        # transformers' own method tells new tokens from old ones only by how many there are
        model: Any = self
        close_prompt = model_kwargs.pop("close_prompt", True)
        cache, turn = model_kwargs.get(CACHE_NAME), model_kwargs.get("turn")
        embeds = model_kwargs.pop("inputs_embeds", None)
        mask, breaks = (
            model_kwargs.pop("attention_mask", None),
            model_kwargs.pop("chunk_breaks", None),
        )
        # a mask without a zero was removed, but its width says which tokens were passed
        width = getattr(generation_config, "_mask_length", None) if mask is None else mask.shape[1]
        prompt = unread_prompt(cache, input_ids if embeds is None else embeds, mask, width, breaks)
        if prompt.breaks is None and close_prompt:
            prompt = prompt.closed()
        if cache is None:  # every call reads everything again
            breaks = None if prompt.breaks is None else prompt.breaks[:, 1:]
            model_kwargs |= {
                "attention_mask": mask,
                "chunk_breaks": breaks,
                "inputs_embeds": embeds,
            }
            inputs = self.prepare_inputs_for_generation(
                input_ids, is_first_iteration=is_first_iteration, **model_kwargs
            )
            return model(**inputs, return_dict=True)
        outputs = None
        for piece in prompt.pieces(generation_config.prefill_chunk_size, self.config.chunk_size):
            if outputs is not None and turn is not None:
                turn.collect(outputs)
            ids, given = (input_ids[:, :0], piece.new) if embeds is not None else (piece.new, None)
            inputs = self.prepare_inputs_for_generation(
                ids,
                inputs_embeds=given,
                is_first_iteration=is_first_iteration,
                attention_mask=piece.mask(),
                chunk_breaks=piece.breaks,
                **model_kwargs,
            )
            outputs = model(**inputs, return_dict=True)
        if turn is not None:
            turn.after_prompt = cache.snapshot()
        return outputs

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
        turn: Turn | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of `forward` for the prompt, a piece of it, or the next token.

        Args:
            input_ids: All ids, or the new ones only, [B, T].
            next_sequence_length: Take only this many last columns.
            attention_mask: 0 where a token is padding.
            inputs_embeds: Embeddings of the prompt, used once.
            is_first_iteration: Whether the prompt is being read.
            chunk_breaks: Where chunks close, bool.
            close_prompt: Close the prompt's open chunk before its last token.
            position_ids: Ignored; positions follow from the layout.
            turn: Knows the rows that have ended: what follows is padding.
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
        if turn is not None and inputs.get(CACHE_NAME) is not None and not is_first_iteration:
            inputs["attention_mask"] = turn.mask(input_ids.shape[0], input_ids.device)
        if chunk_breaks is not None and inputs.get("input_ids") is not None:
            # without a cache everything is read again: generated tokens close no chunk early
            more = max(inputs["input_ids"].shape[1] - chunk_breaks.shape[1], 0)
            inputs["chunk_breaks"] = F.pad(chunk_breaks, (0, more)) if chunk_breaks.any() else None
        elif chunk_breaks is not None:
            inputs["chunk_breaks"] = chunk_breaks
        return inputs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        if model_kwargs.get("turn") is not None:
            model_kwargs["turn"].collect(outputs)
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)


def _known(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop what transformers passes to every decoding loop and this one does not use."""
    return {k: v for k, v in kwargs.items() if k not in ("tokenizer", "assistant_tokenizer")}


def _sequences(result: Any) -> Tensor:
    sequences: Tensor = result if isinstance(result, Tensor) else result.sequences
    return sequences


def _collects(config: "GenerationConfig", kwargs: dict[str, Any]) -> list[Any] | None:
    """Return where to collect what is retrieved; None if it is not asked for."""
    if not kwargs.get("output_retrieval"):
        return None
    if not config.return_dict_in_generate:
        raise ValueError("output_retrieval=True needs return_dict_in_generate=True in generate.")
    return []
