"""Needle samples: read the context, ask, generate freely, compare.

The score is exact match of the whole answer, generated greedily with nothing but the model's own
tokens after the question. The lenient score that the paper reports is kept beside it: whether the
first answer token is right when all text before it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from gcattn.chunking.breaks import ASKING_TOKENS
from gcattn.evals.greedy import read_contexts
from gcattn.evals.stream_reader import StreamReader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcattn.data.needle_tasks import NeedleSample

Failure = Literal["wrong_chunk", "right_chunk_wrong_token", "no_retrieval"]
FAILURES: tuple[Failure, ...] = get_args(Failure)


@dataclass(frozen=True)
class NeedleAnswer:
    """A model's result on one sample.

    Attributes:
        index: Number of the sample.
        num_tokens: Tokens of context, questions and answers.
        exact: Every answer was right, token for token.
        num_questions: Questions asked.
        first_tokens_right: Answers whose first token was right, given the true text before it.
        retrieved: Every chunk that holds a part of an answer was retrieved when it was needed (but
            for the asking chunk itself, which the window shows); None for a model without
            retrieval.
        failure: Why the sample failed: a chunk with the answer was not retrieved, or it was and the
            tokens were wrong nonetheless, or the model retrieves nothing; None if it is exact.
        expected: The answers.
        generated: What the model wrote.
        prefill_seconds: Time to read the context.
        answer_seconds: Time to read the questions and answer.
        memory_bytes: Bytes of the context by place; None for caches that do not report them.
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


def answer_samples(
    model: PreTrainedModel,
    samples: Sequence[NeedleSample],
    indices: Sequence[int],
    *,
    segment_length: int,
    on_tokens: Callable[[int], None] | None = None,
) -> list[NeedleAnswer]:
    """Answer samples of one task, in one batch.

    Times and bytes are those of the batch, divided by its size.

    Args:
        model: A causal language model in evaluation mode.
        samples: Contexts and questions, the same number of questions in each.
        indices: Numbers of the samples.
        segment_length: Tokens of each context read by one call; bounds memory.
        on_tokens: Called with the number of tokens of every finished call.
    """
    device = model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # a question closes two chunks early, and the answer ends in a third
    early = (3 * len(samples[0].questions) + 1) * getattr(model.config, "chunk_size", 0)
    expected_tokens = max(sample.num_tokens for sample in samples) + early
    reader = StreamReader(model, len(samples), expected_tokens)
    begin = reader.synchronized_time()
    read_contexts(reader, [sample.context for sample in samples], segment_length, on_tokens)
    read = reader.synchronized_time()
    answers = ask_samples(
        model,
        reader,
        samples,
        indices,
        prefill_seconds=read - begin,
        memory_bytes=reader.num_bytes(),
    )
    if on_tokens is not None:
        on_tokens(sum(sample.num_tokens - sample.context.num_tokens for sample in samples))
    return answers


def ask_samples(
    model: PreTrainedModel,
    reader: StreamReader,
    samples: Sequence[NeedleSample],
    indices: Sequence[int],
    *,
    prefill_seconds: float,
    memory_bytes: dict[str, int] | None,
    in_memory: bool = False,
) -> list[NeedleAnswer]:
    """Ask the questions of samples whose contexts have been read, in one batch.

    Args:
        model: The reader's model.
        reader: It has read the contexts, and nothing else.
        samples: One for each row, the same number of questions in each.
        indices: Numbers of the samples.
        prefill_seconds: Time to read all contexts.
        memory_bytes: Bytes of all contexts by place.
        in_memory: Whether the contexts are in a memory that was read before, not in the reader's
            own stream.
    """
    device = model.device
    begin = reader.synchronized_time()
    asked = _ask_all(reader, samples)
    end = reader.synchronized_time()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    answers = []
    for sample, index, own in zip(samples, indices, asked, strict=True):
        expected = [list(question.answer) for question in sample.questions]
        right = [own.generated[i] == expected[i] for i in range(len(expected))]
        found = None
        if reader.retrieved is not None:
            found = [
                _chunks_of(model, sample, number, in_memory) <= served
                for number, served in enumerate(own.served)
            ]
        answers.append(
            NeedleAnswer(
                index=index,
                num_tokens=sample.num_tokens,
                exact=all(right),
                num_questions=len(expected),
                first_tokens_right=own.first_tokens_right,
                retrieved=None if found is None else all(found),
                failure=_failure(right, found),
                expected=expected,
                generated=own.generated,
                prefill_seconds=prefill_seconds / len(samples),
                answer_seconds=(end - begin) / len(samples),
                memory_bytes=memory_bytes
                and {place: held // len(samples) for place, held in memory_bytes.items()},
                peak_device_bytes=peak,
            )
        )
    return answers


@dataclass
class _Asked:
    """The results of one sample's questions."""

    generated: list[list[int]] = field(default_factory=list)
    served: list[set[int]] = field(default_factory=list)  # chunks that served each answer
    first_tokens_right: int = 0


def _ask_all(reader: StreamReader, samples: Sequence[NeedleSample]) -> list[_Asked]:
    """Ask every question; where it makes a difference, a second row is given the true answers."""
    num_questions = len(samples[0].questions)
    copies = 1 if num_questions == 1 else 2  # rows of a sample: free, then teacher-forced
    if copies > 1:
        reader.fork(copies)
    asked = [_Asked() for _ in samples]
    unread: list[tuple[int, ...]] = [()] * (copies * len(samples))  # written, not yet read back
    for number in range(num_questions):
        questions = [sample.questions[number] for sample in samples]
        prompts = []
        for row, before in enumerate(unread):
            sample = samples[row // copies]
            closing = sample.questions[number - 1].closing if number else ()
            prompt = before + closing + sample.questions[number].prompt
            prompts.append(np.array(prompt, dtype=np.int64))
        likeliest = reader.ask(prompts).tolist()  # [B]
        for i, own in enumerate(asked):
            own.first_tokens_right += likeliest[(i + 1) * copies - 1] == questions[i].answer[0]
            own.generated.append([likeliest[i * copies]])
            own.served.append(_served(reader, i * copies))
        for place in range(1, max(len(question.answer) for question in questions)):
            given: list[int | None] = []
            for own, question in zip(asked, questions, strict=True):
                both = [
                    own.generated[-1][-1],
                    question.answer[min(place, len(question.answer)) - 1],
                ]
                given += both[:copies] if place < len(question.answer) else [None] * copies
            likeliest = reader.feed(given).tolist()
            for i, own in enumerate(asked):
                if place < len(questions[i].answer):
                    own.generated[-1].append(likeliest[i * copies])
                    own.served[-1] |= _served(reader, i * copies)
        unread = []
        for own, question in zip(asked, questions, strict=True):
            unread += [(own.generated[-1][-1],), (question.answer[-1],)][:copies]
    return asked


def _served(reader: StreamReader, row: int) -> set[int]:
    return set() if reader.retrieved is None else set(reader.retrieved[row])


def _chunks_of(
    model: PreTrainedModel, sample: NeedleSample, number: int, in_memory: bool
) -> set[int]:
    """Return the chunks of the context that must be retrieved to answer a question."""
    size = getattr(model.config, "chunk_size", None)
    if size is None:
        return set()
    question = sample.questions[number]
    # a context has no breaks: each chunk holds S - 1 tokens
    chunks = {position // (size - 1) for place in sample.evidence(question) for position in place}
    if number == 0 and not in_memory and len(question.prompt) < ASKING_TOKENS + 2:
        # a chunk can't retrieve itself: the window covers what the asking one holds
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
