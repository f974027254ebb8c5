"""`gcattn generate`: text from a saved model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

from gcattn.cli.evaluate import Device, Dtype, Model, Tier
from gcattn.cli.limits import countable, seedable
from gcattn.cli.paths import expand

# scores divided by less overflow
_LEAST_TEMPERATURE = 1e-4


def generate(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="Text to continue.")] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(callback=expand, help="File with the text to continue.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, callback=countable, help="Stop after this many tokens.")
    ] = 200,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="0 takes the most likely token; higher values vary more."),
    ] = 0.8,
    top_p: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Sample from the most likely tokens that add up to this probability.",
        ),
    ] = 0.95,
    seed: Annotated[int, typer.Option(min=0, callback=seedable, help="Seed of sampling.")] = 0,
    stream: Annotated[bool, typer.Option(help="Print words as they are generated.")] = True,
    segment_length: Annotated[
        int,
        typer.Option(
            min=1, callback=countable, help="Tokens of the prompt read at a time; bounds memory."
        ),
    ] = 4096,
    memory_tier: Tier = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Continue a prompt of any length; the new text goes to standard output."""
    import torch
    from transformers import TextStreamer, set_seed

    from gcattn.data import load_tokenizer
    from gcattn.evals.model_loading import load_causal_lm

    text = _read_prompt(prompt, prompt_file)
    causal_lm: Any = load_causal_lm(model, device=device, dtype=dtype, memory_tier=memory_tier)
    tokenizer = load_tokenizer(model)
    token_ids = tokenizer(text, return_tensors="pt").input_ids.to(causal_lm.device)
    if 0 < temperature < _LEAST_TEMPERATURE:
        raise ValueError(
            f"--temperature must be 0, which takes the most likely token, or at least "
            f"{_LEAST_TEMPERATURE}, got {temperature}."
        )
    choice: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        choice = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    set_seed(seed)
    output = causal_lm.generate(
        token_ids,
        attention_mask=torch.ones_like(token_ids),
        max_new_tokens=max_new_tokens,
        prefill_chunk_size=segment_length,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        if stream
        else None,
        logits_processor=[_refuse_not_finite],
        **choice,
    )
    if not stream:
        new = output[0, token_ids.shape[1] :]
        print(tokenizer.decode(new, skip_special_tokens=True))


def _refuse_not_finite(token_ids: Tensor, scores: Tensor) -> Tensor:
    """Stop at the first step whose scores are not finite: no token can be chosen from them."""
    if not bool(scores.isfinite().any(-1).all()) or bool(scores.isnan().any()):
        raise ValueError(
            "The model gives scores that are not finite; its weights or its configuration are "
            "damaged."
        )
    return scores


def _read_prompt(prompt: str | None, prompt_file: Path | None) -> str:
    if (prompt is None) == (prompt_file is None):
        raise ValueError("Give either --prompt TEXT or --prompt-file FILE.")
    if prompt_file is not None:
        try:
            prompt = prompt_file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{prompt_file} is not a UTF-8 text file ({error}).") from error
    if not prompt:
        raise ValueError("The prompt is empty; give at least one character.")
    try:
        # what the shell passed and this process could not decode comes as halves of characters
        return os.fsencode(prompt).decode("utf-8") if not _is_text(prompt) else prompt
    except UnicodeError as error:
        raise ValueError(
            f"The prompt holds bytes that are not UTF-8 ({error.reason}); "  # type: ignore[attr-defined]
            "convert it, or pass it as a UTF-8 --prompt-file."
        ) from error


def _is_text(prompt: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in prompt)
