"""A whole needle evaluation: cells, result file and picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.data.needle_tasks import TASK_NAMES, NeedleTask, NeedleVocabulary
from gcattn.evals.haystack_run import haystack_run
from gcattn.evals.needle_cells import NeedleCell, evaluate_needles, even_depths
from gcattn.evals.needle_plot import plot_needles
from gcattn.evals.needle_report import metrics
from gcattn.evals.plot import short_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def parse_needle_tasks(text: str) -> list[NeedleTask]:
    """Read tasks such as single,two-hop:12, or all.

    Raises:
        ValueError: One is unknown, or two are the same.
    """
    names = TASK_NAMES if text.strip() == "all" else tuple(text.split(","))
    tasks = [NeedleTask.parse(name) for name in names]
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"Tasks must differ, got {text!r}.")
    return tasks


def run_needles(
    model: PreTrainedModel,
    source: str,
    haystack: Path | None,
    out: Path,
    *,
    tasks: Sequence[NeedleTask],
    lengths: Sequence[int],
    num_depths: int,
    samples: int,
    seed: int = 0,
    segment_length: int = 16_384,
    batch_size: int = 1,
    changes: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[NeedleCell], Path, Path]:
    """Ask a model for needles, and write the result and its picture.

    Args:
        model: A causal language model in evaluation mode.
        source: Where it came from; its tokenizer is there.
        haystack: Token shards; None for synthetic text.
        out: Result file, ending in .json; the plot goes beside it.
        tasks: What is hidden and asked.
        lengths: Tokens of context, questions and answers.
        num_depths: Depths of the needle, in even steps from start to end.
        samples: Samples of each task, length and depth.
        seed: Fixes all samples.
        segment_length: Tokens read at a time; bounds memory.
        batch_size: Samples read side by side.
        changes: Fields of the model's configuration that it was not saved with.
        on_progress: Called with the tokens read so far and those to read in all.

    Returns:
        The cells, the result file and the picture.

    Raises:
        ValueError: Model, haystack and result file do not fit each other.
    """
    depths = even_depths(num_depths)
    asked = {
        "tasks": [str(task) for task in tasks],
        "lengths": list(lengths),
        "depths": depths,
        "segment_length": segment_length,
        "batch_size": batch_size,
        "num_cells": len(tasks) * len(lengths) * len(depths),
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
    ) as run:
        cells = evaluate_needles(
            model,
            run.text,
            NeedleVocabulary(run.tokenizer, "validation"),
            tasks,
            lengths,
            depths,
            samples,
            seed=seed,
            segment_length=segment_length,
            batch_size=batch_size,
            store=run.store,
            on_progress=on_progress,
            on_cell=lambda finished: run.write_unfinished(metrics(finished)),
        )
    file = run.write(metrics(cells))
    where = "synthetic text" if haystack is None else short_name(haystack)
    picture = file.with_suffix(".png")
    plot_needles(cells, f"{short_name(Path(source))} on {where}", picture)
    run.store.remove()
    return cells, file, picture
