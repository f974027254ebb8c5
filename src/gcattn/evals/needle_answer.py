"""One needle sample put to a model: read the context, ask, generate freely, compare.

The score is exact match of the whole answer, generated greedily with nothing but the model's own
tokens behind the question. Beside it stands the lenient score that the paper reports: whether the
first answer token is right when all text before it is the true one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from gcattn.evals.stream_reader import StreamReader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcattn.data.needle_tasks import NeedleSample

Failure = Literal["wrong_chunk", "right_chunk_wrong_token", "no_retrieval"]
FAILURES: tuple[Failure, ...] = get_args(Failure)


@dataclass(frozen=True)
class NeedleAnswer:
    """What a model made of one sample.

    Attributes:
        index: Number of the sample.
        num_tokens: Tokens of context, questions and answers.
        exact: Every answer was right, token for token.
        num_questions: Questions asked.
        first_tokens_right: Answers whose first token was right, the true text being given.
        retrieved: Every chunk that holds a part of an answer was retrieved when it was needed (but
            for the asking chunk itself, which the window shows); None for a model without
            retrieval.
        failure: Why the sample failed: a chunk with the answer was not retrieved, or it was and the
            tokens were wrong nonetheless, or the model retrieves nothing; None if it is exact.
        expected: The answers.
        generated: What the model wrote.
        prefill_seconds: Time to read the context.
        answer_seconds: Time to read the questions and answer.
        memory_bytes: Bytes that the context took by place; None for caches that do not say.
        peak_device_bytes: Most bytes allocated on the GPU, weights included; None on a CPU.
    """

    index: int
    num_tokens: int
    exact: bool
    num_questions: int
    first_tokens_right: int
    retrieved: bool | None
    failure: Failure | None
    expected: list[list[int]]
    generated: list[list[int]]
    prefill_seconds: float
    answer_seconds: float
    memory_bytes: dict[str, int] | None
    peak_device_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def answer_sample(
    model: PreTrainedModel,
    sample: NeedleSample,
    index: int,
    *,
    segment_length: int,
    on_tokens: Callable[[int], None] | None = None,
) -> NeedleAnswer:
    """Put a sample to a model.

    Args:
        model: A causal language model in evaluation mode.
        sample: Context and questions.
        index: Number of the sample.
        segment_length: Tokens of the context read by one call; bounds memory.
        on_tokens: Called with the number of tokens of every finished call.
    """
    device = model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    reader = StreamReader(model)
    begin = reader.synchronized_time()
    for segment in sample.context.segments(segment_length):
        reader.read([segment])
        if on_tokens is not None:
            on_tokens(len(segment))
    read = reader.synchronized_time()
    memory_bytes = reader.num_bytes()
    asked = _ask_all(reader, sample, device)
    end = reader.synchronized_time()
    if on_tokens is not None:
        on_tokens(sample.num_tokens - sample.context.num_tokens)

    needed = [_chunks_of(model, sample, number) for number in range(len(sample.questions))]
    expected = [list(question.answer) for question in sample.questions]
    right = [asked.generated[i] == expected[i] for i in range(len(expected))]
    found = None
    if asked.retrieved is not None:
        found = [chunks <= held for chunks, held in zip(needed, asked.retrieved, strict=True)]
    return NeedleAnswer(
        index=index,
        num_tokens=sample.num_tokens,
        exact=all(right),
        num_questions=len(expected),
        first_tokens_right=asked.first_tokens_right,
        retrieved=None if found is None else all(found),
        failure=_failure(right, found),
        expected=expected,
        generated=asked.generated,
        prefill_seconds=read - begin,
        answer_seconds=end - read,
        memory_bytes=memory_bytes,
        peak_device_bytes=torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else None,
    )


@dataclass(frozen=True)
class _Asked:
    generated: list[list[int]]
    first_tokens_right: int
    retrieved: list[set[int]] | None  # chunks that served the answer of each question


def _ask_all(reader: StreamReader, sample: NeedleSample, device: torch.device) -> _Asked:
    """Ask every question; a second row is given the true answers where that makes a difference."""
    questions = sample.questions
    num_rows = 1 if len(questions) == 1 else 2
    if num_rows > 1:
        reader.fork(num_rows)
    generated: list[list[int]] = []
    retrieved: list[set[int]] = []
    first_tokens_right = 0
    unread = [np.empty(0, dtype=np.int64)] * num_rows  # written but not yet read back
    closing: tuple[int, ...] = ()
    for question in questions:
        prompt = np.array(closing + question.prompt, dtype=np.int64)
        prompts = torch.from_numpy(np.stack([np.concatenate([row, prompt]) for row in unread]))
        likeliest = reader.ask(prompts.to(device))  # [B]
        served = set(reader.retrieved or ())
        first_tokens_right += int(likeliest[-1]) == question.answer[0]
        written = [int(likeliest[0])]
        for place in range(1, len(question.answer)):
            given = [written[-1], question.answer[place - 1]][:num_rows]
            likeliest = reader.feed(torch.tensor(given, device=device))
            served |= reader.retrieved or set()
            written.append(int(likeliest[0]))
        generated.append(written)
        retrieved.append(served)
        last = [written[-1], question.answer[-1]][:num_rows]
        unread = [np.array([token], dtype=np.int64) for token in last]
        closing = question.closing
    return _Asked(generated, first_tokens_right, None if reader.retrieved is None else retrieved)


def _chunks_of(model: PreTrainedModel, sample: NeedleSample, number: int) -> set[int]:
    """Return the chunks of the context that must be retrieved to answer a question."""
    size = getattr(model.config, "chunk_size", None)
    if size is None:
        return set()
    question = sample.questions[number]
    # a context has no breaks: each of its chunks holds S - 1 tokens
    chunks = {position // (size - 1) for place in sample.evidence(question) for position in place}
    if number == 0:
        # a chunk can't retrieve itself: what the asking one holds is within the window
        asking = (sample.context.num_tokens + len(question.prompt) - 2) // (size - 1)
        chunks.discard(asking)
    return chunks


def _failure(right: list[bool], found: list[bool] | None) -> Failure | None:
    if all(right):
        return None
    if found is None:
        return "no_retrieval"
    if all(found[i] for i in range(len(right)) if not right[i]):
        return "right_chunk_wrong_token"
    return "wrong_chunk"
