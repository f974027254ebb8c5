"""The grid of a needle evaluation: cells of task, length and depth, each kept once finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch

from gcattn.data.needle_tasks import NeedleTask, draw_sample
from gcattn.evals.cell_store import CellStore
from gcattn.evals.needle_answer import NeedleAnswer, answer_samples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcattn.data.needle_tasks import Haystack, NeedleSample, NeedleVocabulary


@dataclass(frozen=True)
class NeedleCell:
    """The answers to all samples of one task, length and depth."""

    task: str
    length: int
    depth: float
    answers: tuple[NeedleAnswer, ...]


def evaluate_needles(
    model: PreTrainedModel,
    haystack: Haystack,
    vocabulary: NeedleVocabulary,
    tasks: Sequence[NeedleTask],
    lengths: Sequence[int],
    depths: Sequence[float],
    num_samples: int,
    *,
    seed: int = 0,
    segment_length: int,
    batch_size: int = 1,
    store: CellStore | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_cell: Callable[[Sequence[NeedleCell]], None] | None = None,
) -> list[NeedleCell]:
    """Ask a model for needles over a grid of tasks, lengths and depths.

    Args:
        model: A causal language model in evaluation mode.
        haystack: The text around the needles, made with the model's tokenizer.
        vocabulary: Keys and values; of the validation split to be new to a trained model.
        tasks: What is hidden and asked.
        lengths: Tokens of context, questions and answers.
        depths: Where the first needle of the answer lies, 0 to 1.
        num_samples: Samples of each cell.
        seed: Fixes all samples.
        segment_length: Tokens of a context read by one call of the model; bounds memory.
        batch_size: Samples of one task and length put to the model side by side: faster where
            contexts are short. Only a DRT takes more than one.
        store: Keeps finished cells; those it has already are not evaluated again.
        on_progress: Called with the tokens read so far and those to read in all.
        on_cell: Called after each cell that was evaluated, with all that are finished.

    Raises:
        ValueError: A length has no room for a task, or an argument is out of range.
    """
    if min(num_samples, segment_length, batch_size) < 1:
        raise ValueError(
            "num_samples, segment_length and batch_size must be at least 1, "
            f"got {num_samples}, {segment_length} and {batch_size}."
        )

    def draw(task: NeedleTask, length: int, depth: float, index: int) -> NeedleSample:
        return draw_sample(
            task, haystack, vocabulary, length=length, seed=seed, index=index, depth=depth
        )

    for task in tasks:  # a length without room fails before hours are spent on the others
        draw(task, min(lengths), depths[0], 0)
    total = sum(lengths) * len(tasks) * len(depths) * num_samples
    done = 0

    def on_tokens(num_tokens: int) -> None:
        nonlocal done
        done += num_tokens
        if on_progress is not None:
            on_progress(done, total)

    cells: list[NeedleCell] = []
    for length, task in product(lengths, tasks):
        answers: dict[float, list[NeedleAnswer]] = {depth: [] for depth in depths}
        missing = []
        for depth in depths:
            name = _file_name(task, length, depth)
            kept = store.load(name, num_samples) if store is not None else None
            if kept is None:
                missing += [(depth, index) for index in range(num_samples)]
            else:
                answers[depth] = [NeedleAnswer(**answer) for answer in kept]
                on_tokens(length * num_samples)
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            samples = [draw(task, length, depth, index) for depth, index in batch]
            answered = answer_samples(
                model,
                samples,
                [index for _, index in batch],
                segment_length=segment_length,
                on_tokens=on_tokens,
            )
            on_tokens(sum(length - sample.num_tokens for sample in samples))
            for (depth, _), answer in zip(batch, answered, strict=True):
                answers[depth].append(answer)
                if len(answers[depth]) == num_samples:
                    if store is not None:
                        finished = [answer.as_dict() for answer in answers[depth]]
                        store.save(_file_name(task, length, depth), finished)
                    if on_cell is not None:
                        ended = [d for d in depths if len(answers[d]) == num_samples]
                        on_cell(cells + [_cell(task, length, d, answers) for d in ended])
        cells += [_cell(task, length, depth, answers) for depth in depths]
    return cells


def _cell(
    task: NeedleTask, length: int, depth: float, answers: dict[float, list[NeedleAnswer]]
) -> NeedleCell:
    return NeedleCell(str(task), length, depth, tuple(answers[depth]))


def _file_name(task: NeedleTask, length: int, depth: float) -> str:
    return f"{str(task).replace(':', '-')}_{length}_{depth:.6f}"


def even_depths(count: int) -> list[float]:
    """Return `count` depths from 0 to 1 in even steps; a single one is the middle."""
    if count < 1:
        raise ValueError(f"There must be at least 1 depth, got {count}.")
    return [0.5] if count == 1 else [round(i / (count - 1), 6) for i in range(count)]


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a hash of the weights and the configuration: what an answer depends on."""
    fields = model.config.to_dict()
    # neither where a model lies nor who saved it changes an answer
    kept = {n: v for n, v in fields.items() if n[0] != "_" and n != "transformers_version"}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
