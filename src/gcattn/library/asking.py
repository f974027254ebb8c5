"""Questions to a memory of files: the model's answer and its sources."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from gcattn.data.stories.story import scenes
from gcattn.library.sources import Source, chunk_weights, source_of
from gcattn.library.state import read_state
from gcattn.memory.cache import DRTCache
from gcattn.storage.home import expand_home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gcattn.memory.saved import SavedMemory
    from gcattn.memory.stores import MemoryTier

_logger = logging.getLogger(__name__)
# tokens of ordinary text in front of the first question, about a window
_TOKENS_BEFORE = 504


@dataclass(frozen=True)
class Answer:
    """A model's answer, and the chunks that it retrieved for it.

    Chunks that contain the answer come first, then the others, each group in order of weight.
    """

    text: str
    sources: tuple[Source, ...]


class Library:
    """A memory, its model and its tokenizer.

    Args:
        memory: The memory that is asked.
        model: The `DRTForCausalLM` that read it, in evaluation mode.
        tokenizer: Its tokenizer; questions use its chat template, if it has one.

    Raises:
        ValueError: The memory was made by another model.
    """

    def __init__(self, memory: SavedMemory, model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        memory.check(model)
        self.memory = memory
        self.model = model
        self.tokenizer = tokenizer

    def ask(self, question: str, *, max_new_tokens: int = 64, stop: str | None = "\n") -> Answer:
        """Answer a question from the memory, greedily; the memory does not change.

        Args:
            question: In the wording that the model was trained on.
            max_new_tokens: Maximum length of the answer.
            stop: Text that ends an answer, besides the end-of-text token; None: no such text.

        Raises:
            ValueError: The question is empty.
        """
        return self.conversation().ask(question, max_new_tokens=max_new_tokens, stop=stop)

    @cached_property
    def beginning(self) -> DRTCache:
        """The stream of every conversation before its first question.

        It has read text that says nothing of anybody: models were trained on questions behind text,
        and at the very beginning of a stream they retrieve poorly.
        """
        cache = DRTCache(self.model.config, memory=self.memory)
        text = "\n\n".join(islice(scenes(Random(0)), _TOKENS_BEFORE // 10))
        ids = self.tokenizer(text, add_special_tokens=False).input_ids[:_TOKENS_BEFORE]
        with torch.inference_mode():
            self.model(torch.tensor([ids], device=self.model.device), cache=cache, logits_to_keep=1)
        return cache

    def conversation(self) -> Conversation:
        """Start a conversation, in which each question sees the turns before it."""
        return Conversation(self)


class Conversation:
    """Questions and answers on one memory, which other conversations may share.

    Args:
        library: The library that is asked.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._cache = deepcopy(library.beginning)

    def ask(self, question: str, *, max_new_tokens: int = 64, stop: str | None = "\n") -> Answer:
        """Answer a question; takes the arguments of `Library.ask`."""
        if not question.strip():
            raise ValueError("The question is empty.")
        model, tokenizer, cache = self._library.model, self._library.tokenizer, self._cache
        prompt = worded(question, tokenizer)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        ids = ids.to(model.device)
        width = cache.get_seq_length() + ids.shape[1]
        output = model.generate(
            ids,
            # its width says that the ids continue from what was read
            attention_mask=torch.ones(1, width, dtype=torch.long, device=ids.device),
            cache=cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            stop_strings=stop,
            tokenizer=tokenizer,
            output_retrieval=True,
            return_dict_in_generate=True,
        )
        new = output.sequences[0, ids.shape[1] :]
        text = str(tokenizer.decode(new, skip_special_tokens=True))
        if stop is not None:
            text = text.split(stop)[0]
        memory, weights = self._library.memory, chunk_weights(output.retrieval)
        sources = [
            source_of(memory, tokenizer, chunk, weight, question, text)
            for chunk, weight in weights.items()
            if chunk < memory.num_chunks  # the others belong to this conversation
        ]
        # a stable sort keeps the order by weight within each group
        return Answer(text.strip(), tuple(sorted(sources, key=lambda x: not x.holds_answer)))


def worded(question: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the prompt for a question: the chat template's, or the question on its own line."""
    if tokenizer.chat_template is None:
        return f"\n{question}"
    turn = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return str(prompt)


def open_library(
    folder: str | Path,
    *,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    memory_tier: MemoryTier | None = None,
) -> Library:
    """Open a memory of files for questions.

    Args:
        folder: Made by `build_library` or `gcattn memory build`.
        model: Folder or hub name of the model; by default the one that made the memory.
        device: "cpu", "cuda", or "auto".
        dtype: Number format of the weights; "auto": as saved, on a CPU float32 where 16 bits are
            slow.
        memory_tier: Where keys and values come from, as in `open_memory`.

    Raises:
        FileNotFoundError: There is no memory, or no model where it was.
        ValueError: The memory is damaged, or of another model.
    """
    from gcattn.data.tokenizer_loading import load_tokenizer
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.memory.saved import open_memory

    folder = expand_home(folder)
    memory, state = open_memory(folder, memory_tier), read_state(folder)
    if state is not None and state.unfinished is not None:
        _logger.warning(
            "Reading %s into %s is not finished: answers come from what was read so far.",
            " ".join(state.unfinished),
            folder,
        )
    source = model or (None if state is None else state.model)
    if source is None:
        raise ValueError(f"{folder} does not say which model made it; name it.")
    loaded = load_causal_lm(source, device=device, dtype=dtype)
    return Library(memory, loaded, load_tokenizer(source))
