"""Needles as an evaluation in a haystack."""

from __future__ import annotations

from collections.abc import Sequence

from gcattn.data.needle_tasks import TASK_NAMES, NeedleTask, NeedleVocabulary
from gcattn.evals.cells import parse_tasks
from gcattn.evals.haystack_run import HaystackEvaluation
from gcattn.evals.needle_cells import NeedleCell, evaluate_needles, even_depths
from gcattn.evals.needle_report import metrics


def needle_evaluation(
    tasks: str, lengths: Sequence[int], num_depths: int
) -> HaystackEvaluation[NeedleCell]:
    """Return an evaluation that hides needles and asks for them.

    Args:
        tasks: Names such as single,two-hop:12, or all.
        lengths: Tokens of context, questions and answers.
        num_depths: Depths of the needle, in even steps from start to end.

    Raises:
        ValueError: A task is unknown, or two are the same.
    """
    wanted = parse_tasks(tasks, {"all": TASK_NAMES}, NeedleTask.parse)
    depths = even_depths(num_depths)
    return HaystackEvaluation(
        tasks=[str(task) for task in wanted],
        lengths=lengths,
        num_cells=len(wanted) * len(lengths) * len(depths),
        evaluate=lambda model, text, tokenizer, run: evaluate_needles(
            model, text, NeedleVocabulary(tokenizer, "validation"), wanted, lengths, depths, run
        ),
        metrics=metrics,
        asked={"depths": depths},
    )
