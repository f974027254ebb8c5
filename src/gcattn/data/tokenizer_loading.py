"""Loading of a tokenizer, the shipped one by default, whose text can't forge special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from gcattn.storage.home import expand_home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SHIPPED_TOKENIZER = Path(__file__).parent / "tokenizer"
SHIPPED_TOKENIZER_NAME = "gcattn-books-16k"


def load_tokenizer(name_or_path: str | Path | None = None) -> PreTrainedTokenizerFast:
    """Load a tokenizer that has an end-of-text and a padding token.

    Special tokens written out in a text, such as "<|landmark|>", are encoded as plain characters:
    only a model or the data preparation puts special ids into a sequence.

    Args:
        name_or_path: A folder with tokenizer files, the name of a model of the Hugging Face hub, or
            None for the byte-level BPE of 16,383 tokens that comes with the package.

    Raises:
        FileNotFoundError: There is no such folder, nor such a model on a hub within reach.
        ValueError: The tokenizer is damaged, is not a fast one, or has no end-of-text token.
    """
    from transformers.models.auto import AutoTokenizer

    source = SHIPPED_TOKENIZER if name_or_path is None else name_or_path
    missing = (
        f"No tokenizer at {str(source)!r}; expected a folder with tokenizer.json, or the name of a "
        "model of the Hugging Face hub while that is within reach."
    )
    folder = expand_home(source)
    source = str(folder) if folder.exists() else source
    if not folder.exists() and folder.parent != Path() and folder.parent.exists():
        # a path and no name: the hub need not be asked, which takes half a minute out of its reach
        raise FileNotFoundError(missing)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, split_special_tokens=True)
    except Exception as error:
        if (folder / "tokenizer.json").is_file():
            # the libraries raise bare exceptions for what is wrong inside
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"The tokenizer {str(source)!r} is damaged: {reason}") from error
        if not isinstance(error, OSError | ValueError):
            raise
        raise FileNotFoundError(missing) from error
    if not tokenizer.is_fast:
        raise ValueError(
            f"The tokenizer {str(source)!r} has no tokenizer.json; a fast one is needed."
        )
    if not isinstance(tokenizer.model_max_length, int | float):
        raise ValueError(
            f"The tokenizer {str(source)!r} is damaged: model_max_length must be a number, got "
            f"{tokenizer.model_max_length!r}."
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"The tokenizer {str(source)!r} has no eos_token to end documents with.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return cast("PreTrainedTokenizerFast", tokenizer)
