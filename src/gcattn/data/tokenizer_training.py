"""Training of the byte-level BPE tokenizer: texts in, the files of `load_tokenizer` out."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gcattn.data.documents import OnInvalid
from gcattn.data.text_pieces import TextCutter
from gcattn.storage.home import expand_home
from gcattn.storage.removal import remove
from gcattn.storage.whole import new_file

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"
# 256 bytes and the two special tokens
MIN_VOCAB_SIZE = 258
# what harnesses take for the context length: that of training in the paper; models read on beyond
MODEL_MAX_LENGTH = 16_384


def train_tokenizer(
    texts: Iterable[str | Iterator[str]],
    vocab_size: int,
    folder: str | Path,
    *,
    overwrite: bool = False,
    on_invalid: OnInvalid | None = None,
) -> Path:
    """Train a byte-level BPE on `texts` and write its files into `folder`.

    Digits are split one by one and nothing is normalized, so any text survives the round trip.
    `<|endoftext|>` is id 0, `<|pad|>` id 1.

    Args:
        texts: Documents to learn the merges from, each whole or in pieces.
        vocab_size: Number of tokens, the special ones included; at least 258.
        folder: Where to write `tokenizer.json` and `tokenizer_config.json`; made if needed.
        overwrite: Replace a tokenizer that is in `folder`; that of a model never is.
        on_invalid: Told what is wrong with a document that can't be read to its end; without it
            that is an error.

    Returns:
        The folder.

    Raises:
        ValueError: `vocab_size` is too small, or too big for what the texts hold.
        FileExistsError: `folder` holds a model, or a tokenizer and `overwrite` is off.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(
            f"vocab_size must be at least {MIN_VOCAB_SIZE} (256 bytes, 2 special tokens), "
            f"got {vocab_size}."
        )
    folder = expand_home(folder)
    _check_target(folder, overwrite)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": PADDING,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        # `generate` continues the right end of every row
        "padding_side": "left",
        "model_max_length": MODEL_MAX_LENGTH,
    }
    with _made(folder):
        tokenizer.train_from_iterator(_parts(texts, TextCutter(tokenizer), on_invalid), trainer)
        learned = tokenizer.get_vocab_size()
        if learned != vocab_size:
            raise ValueError(
                f"The texts support {learned} tokens, not {vocab_size}; "
                f"pass --vocab-size {learned} or give more text."
            )
        with new_file(folder / "tokenizer.json") as stream:
            stream.write(tokenizer.to_str() + "\n")
        with new_file(folder / "tokenizer_config.json") as stream:
            stream.write(json.dumps(config, indent=2) + "\n")
    return folder


def _parts(
    texts: Iterable[str | Iterator[str]], cutter: TextCutter, on_invalid: OnInvalid | None
) -> Iterator[str]:
    """Cut documents between words, which the trainer counts one by one anyway."""
    for text in texts:
        try:
            yield from cutter.cut([text] if isinstance(text, str) else text)
        except ValueError as error:
            if on_invalid is None:
                raise
            on_invalid(str(error))


def _check_target(folder: Path, overwrite: bool) -> None:
    if (folder / "config.json").exists():
        raise FileExistsError(
            f"{folder} holds a model, whose ids mean what its own tokenizer says; choose another "
            "--out."
        )
    if (folder / "tokenizer.json").exists() and not overwrite:
        raise FileExistsError(
            f"{folder} holds a tokenizer; pass --overwrite or choose another --out."
        )


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder before hours of work for it, and remove it if they fail."""
    exists = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not exists:
            remove(folder)
        raise
