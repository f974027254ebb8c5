"""Token shards of examples: each is a document, with a mask of the tokens that are answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gcattn.data.examples.encoding import encode_example, plain_backend
from gcattn.data.examples.example import Example
from gcattn.data.prepare import Progress
from gcattn.data.shard_writer import TokenShardWriter
from gcattn.data.token_shards import TokenShards
from gcattn.data.tokenizer_loading import load_tokenizer


@dataclass(frozen=True)
class PreparedExamples:
    """Shards of examples.

    Attributes:
        shards: The shards, opened.
        num_cut: Documents that lost their end.
    """

    shards: TokenShards
    num_cut: int


def prepare_examples(
    examples: Iterable[Example],
    folder: str | Path,
    *,
    tokenizer: str | Path | None = None,
    most_tokens: int | None = None,
    max_examples: int | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> PreparedExamples:
    """Encode examples and write them to `folder`, which appears only once it is complete.

    Args:
        examples: What to encode.
        folder: The folder to make.
        tokenizer: What `load_tokenizer` loads; None is the shipped one.
        most_tokens: Longest example, its end-of-text token included; longer documents of summaries
            lose their end.
        max_examples: Stop after so many.
        overwrite: Replace `folder` if it holds token shards.
        on_progress: Called with the numbers of examples and tokens so far.

    Raises:
        FileExistsError: `folder` exists and `overwrite` is off.
        ValueError: There are no examples, or one is too long and must not be cut.
    """
    loaded = load_tokenizer(tokenizer)
    backend = plain_backend(loaded)
    room = None if most_tokens is None else most_tokens - 1
    num_cut = 0
    with TokenShardWriter(
        folder, loaded, str(tokenizer or "shipped"), with_answer_mask=True, overwrite=overwrite
    ) as writer:
        for number, example in enumerate(examples):
            if number == max_examples:
                break
            encoded = encode_example(backend, example, room)
            num_cut += encoded.is_cut
            num_bytes = len(example.document.encode())
            num_bytes += sum(len((turn.prompt + turn.answer).encode()) for turn in example.turns)
            # a line break ends answers of one line; summaries end with the text
            ends_text = not example.turns[-1].answer.endswith("\n")
            writer.append(
                encoded.token_ids(), num_bytes, answer_mask=encoded.answer_mask(with_end=ends_text)
            )
            if on_progress is not None:
                on_progress(writer.num_documents, writer.num_tokens)
        if writer.num_documents == 0:
            raise ValueError("There are no examples to prepare; nothing was written.")
    return PreparedExamples(TokenShards(folder), num_cut)
