"""Needles as an evaluation in a haystack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gcattn.data.needle_tasks import TASK_NAMES, NeedleTask, NeedleVocabulary
from gcattn.evals.cells import CellRun, parse_tasks
from gcattn.evals.haystack_run import HaystackEvaluation
from gcattn.evals.needle_cells import NeedleCell, evaluate_needles, even_depths
from gcattn.evals.needle_report import metrics
from gcattn.evals.needles_in_memory import evaluate_needles_in_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from gcattn.data.needle_tasks import Haystack
    from gcattn.memory.stores import MemoryTier


def needle_evaluation(
    tasks: str,
    lengths: Sequence[int],
    num_depths: int,
    memory: Path | None = None,
    memory_tier: MemoryTier | None = None,
) -> HaystackEvaluation[NeedleCell]:
    """Return an evaluation that hides needles and asks for them.

    Args:
        tasks: Names such as single,two-hop:12, or all.
        lengths: Tokens of context, questions and answers.
        num_depths: Depths of the needle, in even steps from start to end.
        memory: Folder of memories, each of which is read once and asked all questions of its task
            and length; None: every sample has a context of its own.
        memory_tier: Where the keys and values of these memories come from.

    Raises:
        ValueError: A task is unknown, or two are the same.
    """
    wanted = parse_tasks(tasks, {"all": TASK_NAMES}, NeedleTask.parse)
    depths = even_depths(num_depths)

    def evaluate(
        model: PreTrainedModel,
        text: Haystack,
        tokenizer: PreTrainedTokenizerFast,
        run: CellRun,
    ) -> list[NeedleCell]:
        words = NeedleVocabulary(tokenizer, "validation")
        if memory is None:
            return evaluate_needles(model, text, words, wanted, lengths, depths, run)
        return evaluate_needles_in_memory(
            model, text, words, wanted, lengths, depths, run, folder=memory, tier=memory_tier
        )

    return HaystackEvaluation(
        tasks=[str(task) for task in wanted],
        lengths=lengths,
        num_cells=len(wanted) * len(lengths) * len(depths),
        evaluate=evaluate,
        metrics=metrics,
        asked={"depths": depths, "read_once": memory is not None},
    )
