"""A whole evaluation of RULER's tasks: cells and result file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.data.ruler import RULER_TASKS, RulerSource, read_hotpotqa, read_squad
from gcattn.data.ruler.tasks import check_ruler_task
from gcattn.data.shard_index import sha256_of
from gcattn.evals.haystack_run import haystack_run
from gcattn.evals.ruler import RulerCell, evaluate_ruler
from gcattn.evals.ruler_report import metrics

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def parse_ruler_tasks(text: str) -> tuple[str, ...]:
    """Read names of tasks, niah for all of those, or all.

    Raises:
        ValueError: One is unknown, or two are the same.
    """
    groups = {
        "all": RULER_TASKS,
        "niah": tuple(name for name in RULER_TASKS if name.startswith("niah")),
    }
    tasks = groups.get(text.strip()) or tuple(
        check_ruler_task(name.strip()) for name in text.split(",")
    )
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"Tasks must differ, got {text!r}.")
    return tasks


def run_ruler(
    model: PreTrainedModel,
    source: str,
    haystack: Path | None,
    out: Path,
    *,
    tasks: Sequence[str],
    lengths: Sequence[int],
    samples: int,
    squad: Path | None = None,
    hotpotqa: Path | None = None,
    seed: int = 0,
    segment_length: int = 16_384,
    batch_size: int = 1,
    changes: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[RulerCell], Path]:
    """Ask a model RULER's tasks and write the result.

    Args:
        model: A causal language model in evaluation mode.
        source: Where it came from; its tokenizer is there.
        haystack: Token shards; None for synthetic text.
        out: Result file, ending in .json.
        tasks: Names of tasks.
        lengths: Tokens of context, question and answer.
        samples: Samples of each task and length.
        squad: Questions of qa_1 in SQuAD's format; generated stories without it.
        hotpotqa: Questions of qa_2 in HotpotQA's format; generated stories without it.
        seed: Fixes all samples.
        segment_length: Tokens read at a time; bounds memory.
        batch_size: Samples read side by side.
        changes: Fields of the model's configuration that it was not saved with.
        on_progress: Called with the tokens read so far and those to read in all.

    Returns:
        The cells and the result file.

    Raises:
        ValueError: Model, haystack, questions and result file do not fit each other.
    """
    files = {name: file for name, file in (("squad", squad), ("hotpotqa", hotpotqa)) if file}
    pools = {}
    if squad is not None:
        pools["qa_1"] = read_squad(squad)
    if hotpotqa is not None:
        pools["qa_2"] = read_hotpotqa(hotpotqa)
    asked = {
        "questions": {name: str(file) for name, file in files.items()},
        "tasks": list(tasks),
        "lengths": list(lengths),
        "segment_length": segment_length,
        "batch_size": batch_size,
        "num_cells": len(tasks) * len(lengths),
    }
    with haystack_run(
        model,
        source,
        haystack,
        out,
        seed=seed,
        samples=samples,
        asked=asked,
        changes=changes or {},
        settings={"questions_sha256": {name: sha256_of(file) for name, file in files.items()}},
    ) as run:
        cells = evaluate_ruler(
            model,
            run.tokenizer,
            RulerSource(run.tokenizer, run.text, pools),
            tasks,
            lengths,
            samples,
            seed=seed,
            segment_length=segment_length,
            batch_size=batch_size,
            store=run.store,
            on_progress=on_progress,
            on_cell=lambda finished: run.write_unfinished(metrics(finished)),
        )
    file = run.write(metrics(cells))
    run.store.remove()
    return cells, file
