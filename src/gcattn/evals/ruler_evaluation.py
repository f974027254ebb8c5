"""RULER's tasks as an evaluation in a haystack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcattn.data.ruler import RULER_TASKS, RulerSource, read_hotpotqa, read_squad
from gcattn.data.ruler.tasks import check_ruler_task
from gcattn.data.shard_index import sha256_of
from gcattn.evals.cells import parse_tasks
from gcattn.evals.haystack_run import HaystackEvaluation
from gcattn.evals.ruler import RulerCell, evaluate_ruler
from gcattn.evals.ruler_report import metrics


def ruler_evaluation(
    tasks: str,
    lengths: Sequence[int],
    *,
    squad: Path | None = None,
    hotpotqa: Path | None = None,
) -> HaystackEvaluation[RulerCell]:
    """Return an evaluation that asks RULER's tasks.

    Args:
        tasks: Names of tasks, niah for all of those, or all.
        lengths: Tokens of context, question and longest answer.
        squad: Questions of qa_1 in SQuAD's format; generated stories without it.
        hotpotqa: Questions of qa_2 in HotpotQA's format; generated stories without it.

    Raises:
        ValueError: A task is unknown, two are the same, or a file holds no such questions.
    """
    niah = [name for name in RULER_TASKS if name.startswith("niah")]
    wanted = parse_tasks(tasks, {"all": RULER_TASKS, "niah": niah}, check_ruler_task)
    files = {name: file for name, file in (("squad", squad), ("hotpotqa", hotpotqa)) if file}
    pools = {}
    if squad is not None:
        pools["qa_1"] = read_squad(squad)
    if hotpotqa is not None:
        pools["qa_2"] = read_hotpotqa(hotpotqa)
    return HaystackEvaluation(
        tasks=wanted,
        lengths=lengths,
        num_cells=len(wanted) * len(lengths),
        evaluate=lambda model, text, tokenizer, run: evaluate_ruler(
            model, tokenizer, RulerSource(tokenizer, text, pools), wanted, lengths, run
        ),
        metrics=metrics,
        asked={"questions": {name: str(file) for name, file in files.items()}},
        depends={"questions_sha256": {name: sha256_of(file) for name, file in files.items()}},
    )
