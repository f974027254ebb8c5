"""Loads a saved causal language model, ours or any other, and notices damage."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gcattn.evals.device import choose_device
from gcattn.memory.stores import MemoryTier
from gcattn.models.saved_model import check_saved_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

DTYPES = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_causal_lm(
    source: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    memory_tier: MemoryTier | None = None,
    changes: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """Load a model for evaluation or generation.

    Args:
        source: A folder that `save_pretrained` or `gcattn train` wrote, or owner/name on the
            Hugging Face hub.
        device: A torch device; "auto" is the GPU if there is one.
        dtype: "float32", "bfloat16", "float16", or "auto" for the one the model was saved in; on a
            CPU float32 in place of a 16-bit one that is slow there.
        memory_tier: Where a DRT keeps past chunks; None for what its configuration says.
        changes: Fields of a DRT's configuration to run it with, such as `sink_logit`, instead of
            those it was saved with.

    Raises:
        FileNotFoundError: There is no such model.
        ValueError: The model is damaged, the tokenizer beside it is another model's, or an option
            does not fit it or this machine.
    """
    from transformers.models.auto import AutoConfig, AutoModelForCausalLM

    from gcattn.data.tokenizer_loading import load_tokenizer
    from gcattn.models.baselines import attach_text_encoder

    # importing them registers DRTs with the Auto classes
    from gcattn.models.pretrained import DRTPreTrainedModel, check_loading_report

    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    target = choose_device(device)
    _check_source(source)
    check_saved_model(source)
    with _quiet(), _one_sentence(source):
        config = AutoConfig.from_pretrained(source)
    _check_tokenizer(source, config)
    changes = dict(changes or {}) | ({} if memory_tier is None else {"memory_tier": memory_tier})
    if changes:
        config = _changed(config, changes)
    with _quiet(), _one_sentence(source):
        # a pair is returned when the report is asked for
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=DTYPES[dtype],
            output_loading_info=True,
            # the library's error points to a report that is not printed; ours names the tensors
            ignore_mismatched_sizes=True,
        )
    model, report = loaded
    _check_shapes(source, report)
    if isinstance(model, DRTPreTrainedModel):
        check_loading_report(report)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"The model {source} is damaged: {len(missing)} of its tensors are not in its files, "
            f"{missing[0]} among them."
        )
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise ValueError(
                f"The model {source} is damaged: {name} holds NaN or infinite weights."
            )
    if model.config.model_type == "drt" and model.config.retrieval_method == "fixed":
        attach_text_encoder(model, load_tokenizer(source))
    if dtype == "auto" and target.type == "cpu" and _is_slow_on_cpu(model):
        model = model.float()
    return model.to(target).eval()


def _is_slow_on_cpu(model: PreTrainedModel) -> bool:
    """Say whether a CPU is slow at the dtype: a DRT in bfloat16 is faster there than in float32."""
    is_half = model.dtype in (torch.bfloat16, torch.float16)
    return is_half and (model.config.model_type != "drt" or model.dtype == torch.float16)


def _check_shapes(source: str, report: dict[str, Any]) -> None:
    """Refuse weights whose shapes differ from the configuration's; name the first one."""
    found = sorted(
        (name, list(saved), list(expected)) for name, saved, expected in report["mismatched_keys"]
    )
    if found:
        name, saved, expected = found[0]
        raise ValueError(
            f"The weights and the configuration of {source} disagree: {len(found)} tensors have "
            f"other shapes, {name} among them: {saved} in the file, {expected} by config.json."
        )


def _check_source(source: str) -> None:
    """Refuse a path without a model before the hub is asked for it."""
    folder = Path(source)
    if (folder / "config.json").is_file():
        return
    if folder.exists():
        inner = folder / "model"
        hint = f"did you mean {inner}?" if inner.is_dir() else "expected what gcattn train saves."
        raise FileNotFoundError(f"{source} is not a saved model: it has no config.json; {hint}")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) or folder.parent.exists():
        raise FileNotFoundError(
            f"There is no folder {source}; expected a saved model or owner/name on the hub."
        )


def _check_tokenizer(source: str, config: PreTrainedConfig) -> None:
    """Refuse a folder whose tokenizer can't be that of its model."""
    from gcattn.data.tokenizer_fingerprint import num_text_ids
    from gcattn.data.tokenizer_loading import load_tokenizer
    from gcattn.models import DRTConfig

    if not (Path(source) / "tokenizer.json").is_file():
        return
    tokenizer = load_tokenizer(source)
    vocab_size = config.get_text_config().vocab_size
    if num_text_ids(tokenizer) > vocab_size:
        raise ValueError(
            f"The tokenizer in {source} has {num_text_ids(tokenizer)} tokens, the model knows "
            f"{vocab_size}: it is not the model's own; put that back."
        )
    ends = config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends
    # tokenizers of other models do not always list the token that ends their texts
    if isinstance(config, DRTConfig) and ends and tokenizer.eos_token_id not in ends:
        raise ValueError(
            f"The tokenizer in {source} ends a text with token {tokenizer.eos_token_id}, the model "
            f"with {', '.join(map(str, ends))}: it is not the model's own; put that back."
        )


def _changed(config: PreTrainedConfig, changes: Mapping[str, Any]) -> PreTrainedConfig:
    from gcattn.models import DRTConfig

    if not isinstance(config, DRTConfig):
        raise ValueError(
            f"{', '.join(changes)} can be chosen for DRT models only, this one is "
            f"{config.model_type!r}."
        )
    fields = inspect.get_annotations(DRTConfig)
    for name in changes:
        if name not in fields:
            close = get_close_matches(name, fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise ValueError(f"DRTConfig has no field {name!r}{hint}")
    return DRTConfig.from_dict(config.to_dict() | dict(changes))


@contextmanager
def _one_sentence(source: str) -> Iterator[None]:
    """Say in one sentence why the libraries could not load damaged files."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if not Path(source).exists():
            raise FileNotFoundError(f"Cannot get the model {source}: {reason}") from error
        raise ValueError(f"The model {source} cannot be read: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars, reports and retries of the libraries."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bar:
            logging.enable_progress_bar()
