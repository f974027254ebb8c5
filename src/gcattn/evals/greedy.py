"""Reading contexts in pieces and writing answers greedily, shared by all evaluations that ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gcattn.data.needle_tasks.phrases import TokenIds
from gcattn.data.ruler.sample import ReadableText
from gcattn.evals.stream_reader import StreamReader


def read_contexts(
    reader: StreamReader,
    contexts: Sequence[ReadableText],
    segment_length: int,
    on_tokens: Callable[[int], None] | None = None,
) -> None:
    """Read a context in each row, `segment_length` tokens per call.

    Args:
        reader: It must not have read anything yet.
        contexts: One for each row.
        segment_length: Bounds memory; rounded to whole chunks.
        on_tokens: Called with the number of tokens of every finished call.
    """
    segment_length = reader.whole_segment(segment_length)
    for start in range(0, max(context.num_tokens for context in contexts), segment_length):
        segments = [
            context.tokens(
                min(start, context.num_tokens), min(start + segment_length, context.num_tokens)
            )
            for context in contexts
        ]
        reader.read(segments)
        if on_tokens is not None:
            on_tokens(sum(len(segment) for segment in segments))


def write_greedily(
    reader: StreamReader,
    prompts: Sequence[TokenIds],
    most_tokens: int,
    is_finished: Callable[[list[int]], bool],
) -> list[list[int]]:
    """Ask in each row and let the model write greedily.

    Args:
        reader: It must have read the contexts.
        prompts: A question of at least two tokens for each row.
        most_tokens: Maximum tokens to write in a row.
        is_finished: Called with what a row has written; true ends the row.

    Returns:
        The tokens written in each row.
    """
    likeliest = reader.ask([np.array(prompt, dtype=np.int64) for prompt in prompts]).tolist()
    written = [[token] for token in likeliest]
    open_rows = [not is_finished(own) for own in written]
    for _ in range(most_tokens - 1):
        if not any(open_rows):
            break
        given = [
            own[-1] if is_open else None for own, is_open in zip(written, open_rows, strict=True)
        ]
        likeliest = reader.feed(given).tolist()
        for row, own in enumerate(written):
            if open_rows[row]:
                own.append(likeliest[row])
                open_rows[row] = not is_finished(own)
    return written
