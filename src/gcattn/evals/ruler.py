"""RULER samples: read the context, ask, generate freely, look for the references.

The score of a sample is RULER's: the share of its references found anywhere in the generated text
(for questions, whether any is). It is lenient, so two stricter scores are kept beside it: whether
all references were found, and whether the answer begins with one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from gcattn.data.ruler import RulerSample, RulerSource, draw_ruler_sample
from gcattn.evals.cells import Cell, CellRun, evaluate_cells
from gcattn.evals.greedy import read_contexts, write_greedily
from gcattn.evals.stream_reader import StreamReader

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class RulerAnswer:
    """A model's result on one sample.

    Attributes:
        index: Number of the sample.
        num_tokens: Tokens of context, question and longest answer.
        score: RULER's score, 0 to 1.
        all_found: Every reference (for questions: one of them) is in the text.
        begins_right: The text begins with a reference.
        references: What the text must contain.
        text: What the model wrote.
        seconds: Time of the sample.
        prefill_seconds: Part of `seconds` spent reading the context.
    """

    index: int
    num_tokens: int
    score: float
    all_found: bool
    begins_right: bool
    references: list[str]
    text: str
    seconds: float
    prefill_seconds: float


@dataclass(frozen=True)
class RulerCell(Cell):
    """The answers to all samples of one task and length."""

    answers: tuple[RulerAnswer, ...] = field(default=(), kw_only=True)


def string_match(text: str, sample: RulerSample) -> float:
    """Return RULER's score of a text: substring matches, ignoring case."""
    found = [reference.lower() in text.lower() for reference in sample.references]
    return float(any(found)) if sample.needs == "any" else sum(found) / len(found)


def evaluate_ruler(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    source: RulerSource,
    tasks: Sequence[str],
    lengths: Sequence[int],
    run: CellRun,
) -> list[RulerCell]:
    """Evaluate a model on RULER's tasks at several lengths.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        source: What the samples are drawn from.
        tasks: Names of `RULER_TASKS`.
        lengths: Tokens of context, question and longest answer.
        run: How the cells are evaluated.

    Raises:
        ValueError: A length has no room for a task, or an argument is out of range.
    """
    return evaluate_cells(
        [[RulerCell(task, length)] for length, task in product(lengths, tasks)],
        run,
        draw=lambda cell, index: draw_ruler_sample(
            cell.task, source, length=cell.length, seed=run.seed, index=index
        ),
        answer=lambda samples, indices, on_tokens: _answer(
            model, tokenizer, samples, indices, run.segment_length, on_tokens
        ),
        answer_type=RulerAnswer,
    )


def _answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    samples: Sequence[RulerSample],
    indices: Sequence[int],
    segment_length: int,
    on_tokens: Callable[[int], None],
) -> list[RulerAnswer]:
    reader = StreamReader(model, len(samples), max(sample.num_tokens for sample in samples))
    begin = reader.synchronized_time()
    read_contexts(reader, [sample.context for sample in samples], segment_length, on_tokens)
    read = reader.synchronized_time()
    end_of_text = tokenizer.eos_token_id
    written = write_greedily(
        reader,
        [sample.prompt for sample in samples],
        samples[0].num_new_tokens,
        lambda tokens: tokens[-1] == end_of_text,
    )
    end = reader.synchronized_time()
    answers = []
    for sample, index, tokens in zip(samples, indices, written, strict=True):
        text = _readable(tokenizer.decode(tokens, skip_special_tokens=True))
        score = string_match(text, sample)
        answers.append(
            RulerAnswer(
                index=index,
                num_tokens=sample.num_tokens,
                score=score,
                all_found=score == 1,
                begins_right=text.lower().startswith(tuple(r.lower() for r in sample.references)),
                references=list(sample.references),
                text=text,
                seconds=(end - begin) / len(samples),
                prefill_seconds=(read - begin) / len(samples),
            )
        )
    return answers


def _readable(text: Any) -> str:
    """Strip a text, and replace control characters by line breaks."""
    return re.sub(r"[\x00-\x1f]", "\n", str(text).strip()).strip()
