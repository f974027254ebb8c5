"""The grid of a needle evaluation: cells of task, length and depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from gcattn.data.needle_tasks import NeedleTask, draw_sample
from gcattn.evals.cells import Cell, CellRun, evaluate_cells
from gcattn.evals.needle_answer import NeedleAnswer, answer_samples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcattn.data.needle_tasks import Haystack, NeedleSample, NeedleVocabulary


@dataclass(frozen=True)
class NeedleCell(Cell):
    """The answers to all samples of one task, length and depth."""

    depth: float
    answers: tuple[NeedleAnswer, ...] = field(default=(), kw_only=True)

    @property
    def name(self) -> str:
        """Name of the file that keeps the cell."""
        return f"{super().name}_{self.depth:.6f}"


def evaluate_needles(
    model: PreTrainedModel,
    haystack: Haystack,
    vocabulary: NeedleVocabulary,
    tasks: Sequence[NeedleTask],
    lengths: Sequence[int],
    depths: Sequence[float],
    run: CellRun,
) -> list[NeedleCell]:
    """Ask a model for needles over a grid of tasks, lengths and depths.

    Args:
        model: A causal language model in evaluation mode.
        haystack: The text around the needles, made with the model's tokenizer.
        vocabulary: Keys and values; of the validation split to be new to a trained model.
        tasks: What is hidden and asked.
        lengths: Tokens of context, questions and answers.
        depths: Where the first needle of the answer lies, 0 to 1.
        run: How the cells are evaluated.

    Raises:
        ValueError: A length has no room for a task, or an argument is out of range.
    """

    def draw(cell: NeedleCell, index: int) -> NeedleSample:
        return draw_sample(
            NeedleTask.parse(cell.task),
            haystack,
            vocabulary,
            length=cell.length,
            seed=run.seed,
            index=index,
            depth=cell.depth,
        )

    return evaluate_cells(
        [
            [NeedleCell(str(task), length, depth) for depth in depths]
            for length, task in product(lengths, tasks)
        ],
        run,
        draw=draw,
        answer=lambda samples, indices, on_tokens: answer_samples(
            model, samples, indices, segment_length=run.segment_length, on_tokens=on_tokens
        ),
        answer_type=NeedleAnswer,
    )


def even_depths(count: int) -> list[float]:
    """Return `count` depths from 0 to 1 in even steps; a single one is the middle."""
    if count < 1:
        raise ValueError(f"There must be at least 1 depth, got {count}.")
    return [0.5] if count == 1 else [round(i / (count - 1), 6) for i in range(count)]
