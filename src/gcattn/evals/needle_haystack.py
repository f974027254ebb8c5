"""The haystack of a needle evaluation: a folder of token shards, or generated synthetic text."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gcattn.data.needle_tasks import Haystack
from gcattn.data.synthetic_shards import prepare_synthetic_shards
from gcattn.data.token_shards import TokenShards
from gcattn.data.tokenizer_checks import check_tokenizer_of_model, check_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# of the synthetic text: a million tokens, generated in seconds
_NUM_DOCUMENTS = 128
_DOCUMENT_TOKENS = 8192


@contextmanager
def open_haystack(
    folder: Path | None, source: str, model: PreTrainedModel, seed: int
) -> Iterator[Haystack]:
    """Open a haystack that a model can read.

    Args:
        folder: Token shards; None for synthetic text, which exists while the block runs.
        source: Where the model came from; its tokenizer is there.
        model: The model.
        seed: Fixes the synthetic text.

    Raises:
        FileNotFoundError: There are no such shards, or no tokenizer beside the model.
        ValueError: The shards were made with another tokenizer than the model's.
    """
    vocab_size = model.config.get_text_config().vocab_size
    if folder is None:
        with tempfile.TemporaryDirectory() as place:
            made = prepare_synthetic_shards(
                Path(place) / "haystack",
                _NUM_DOCUMENTS,
                _DOCUMENT_TOKENS,
                seed,
                split="validation",
                tokenizer_name=source,
            )
            check_vocabulary(made, vocab_size)
            yield Haystack(made)
        return
    shards = TokenShards(folder)
    check_tokenizer_of_model(shards, source)
    check_vocabulary(shards, vocab_size)
    yield Haystack(shards)
