"""The corpus of the experiments and the demo: synthetic documents under a small tokenizer.

The small vocabulary keeps the output layer from drowning everything else on a CPU.
"""

from dataclasses import dataclass
from pathlib import Path

from gcattn.data import (
    TokenShards,
    prepare_synthetic_shards,
    synthetic_documents,
    train_tokenizer,
)

VOCAB_SIZE = 1024
# 35 chunks of 15 tokens, the end-of-text token behind them
TRAIN_DOCUMENT_TOKENS = 526
TOKENIZER_DOCUMENTS, TOKENIZER_DOCUMENT_TOKENS = 400, 2048


@dataclass(frozen=True)
class ExperimentCorpus:
    """Folders of token shards."""

    train: Path
    validation: dict[int, Path]  # by document length in tokens


def make_corpus(
    folder: str | Path, num_documents: int, validation_documents: dict[int, int], *, seed: int = 0
) -> ExperimentCorpus:
    """Make the tokenizer and the shards, or find those that an earlier call made.

    Args:
        folder: Where everything goes.
        num_documents: Documents to train on, `TRAIN_DOCUMENT_TOKENS` each.
        validation_documents: How many documents of each length to validate on.
        seed: Fixes every document.

    Returns:
        Where the shards are.
    """
    folder = Path(folder)
    tokenizer = folder / "tokenizer"
    if not (tokenizer / "tokenizer_config.json").exists():
        texts = synthetic_documents(TOKENIZER_DOCUMENTS, TOKENIZER_DOCUMENT_TOKENS, seed + 1)
        train_tokenizer((d.text for d in texts), VOCAB_SIZE, tokenizer, overwrite=True)
    train = folder / f"train-{num_documents}"
    _make(train, num_documents, TRAIN_DOCUMENT_TOKENS, seed, "train", tokenizer)
    validation = {}
    for length, count in validation_documents.items():
        validation[length] = folder / f"validation-{length}-{count}"
        _make(validation[length], count, length, seed, "validation", tokenizer)
    return ExperimentCorpus(train, validation)


def _make(
    folder: Path, num_documents: int, document_tokens: int, seed: int, split: str, tokenizer: Path
) -> None:
    if folder.exists():
        TokenShards(folder)  # raises if what is there is damaged
        return
    prepare_synthetic_shards(
        folder,
        num_documents,
        document_tokens,
        seed,
        split=split,  # type: ignore[arg-type]
        tokenizer_name=str(tokenizer),
    )
