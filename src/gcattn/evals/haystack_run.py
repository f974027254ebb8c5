"""An evaluation in a haystack: its text, its finished cells and its result file.

The result is written after every cell, and finished cells are kept beside it until it is complete:
the same call resumes an interrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from gcattn.data.shard_index import INDEX_FILE, sha256_of
from gcattn.evals.cell_store import CellStore
from gcattn.evals.cells import AnyCell, CellRun
from gcattn.evals.needle_haystack import open_haystack
from gcattn.evals.weights_fingerprint import weights_fingerprint
from gcattn.results import read_result, write_result
from gcattn.storage.writable import check_writable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from gcattn.data.needle_tasks import Haystack


@dataclass(frozen=True, kw_only=True)
class HaystackEvaluation(Generic[AnyCell]):
    """What is asked in a haystack.

    Attributes:
        tasks: Names of tasks.
        lengths: Tokens of context, questions and answers.
        num_cells: Cells that make the result whole.
        evaluate: Evaluates the cells of a model in a text, with the text's tokenizer.
        metrics: Returns plain values that summarize cells.
        asked: What else is asked, for the result.
        depends: What finished cells depend on beside weights, text, seed and dtype.
    """

    tasks: Sequence[str]
    lengths: Sequence[int]
    num_cells: int
    evaluate: Callable[[PreTrainedModel, Haystack, PreTrainedTokenizerFast, CellRun], list[AnyCell]]
    metrics: Callable[[Sequence[AnyCell]], dict[str, Any]]
    asked: Mapping[str, Any] = field(default_factory=dict)
    depends: Mapping[str, Any] = field(default_factory=dict)


def run_in_haystack(
    evaluation: HaystackEvaluation[AnyCell],
    model: PreTrainedModel,
    source: str,
    haystack: Path | None,
    out: Path,
    *,
    samples: int,
    seed: int = 0,
    segment_length: int = 16_384,
    batch_size: int = 1,
    changes: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[AnyCell]:
    """Evaluate a model and write the result; nothing is written before the first cell.

    A process that only helps to read has no cells, and writes nothing.

    Args:
        evaluation: What is asked.
        model: A causal language model in evaluation mode.
        source: Where it came from; its tokenizer is there.
        haystack: Token shards; None for synthetic text.
        out: Result file, ending in .json. A complete result of an earlier run is replaced only by a
            complete one.
        samples: Samples of each cell.
        seed: Fixes all samples.
        segment_length: Tokens read at a time; bounds memory.
        batch_size: Samples read in a batch.
        changes: Fields of the model's configuration that it was not saved with.
        on_progress: Called with the tokens read so far and in total.

    Raises:
        FileNotFoundError: There are no such shards, or no tokenizer beside the model.
        ValueError: The shards were made with another tokenizer, a length has no room for a task,
            or `out` does not end in .json or has cells of another evaluation beside it.
    """
    keeps_earlier = check_out(out)
    with open_haystack(haystack, source, model, seed) as text:
        check_writable(out.parent)
        depends = {
            "weights_sha256": weights_fingerprint(model),
            "haystack_sha256": sha256_of(text.shards.folder / INDEX_FILE),
            "haystack_tokens": text.num_tokens,
            "seed": seed,
            "dtype": str(model.dtype).removeprefix("torch."),
            **evaluation.depends,
        }
        config = {
            "model": source,
            "model_type": model.config.model_type,
            "parameters": model.num_parameters(),
            "haystack": "synthetic text" if haystack is None else str(haystack),
            "samples": samples,
            "memory_tier": getattr(model.config, "memory_tier", None),
            "changes": dict(changes or {}),
            "device": str(model.device),
            "tasks": list(evaluation.tasks),
            "lengths": list(evaluation.lengths),
            **evaluation.asked,
            "segment_length": segment_length,
            "batch_size": batch_size,
            "num_cells": evaluation.num_cells,
            **depends,
        }

        def write(cells: Sequence[AnyCell]) -> None:
            metrics = evaluation.metrics(cells)
            write_result(out.stem, config, metrics, folder=out.parent, seed=seed, trials=samples)

        store = CellStore(out.with_suffix(".cells"), depends)
        run = CellRun(
            num_samples=samples,
            segment_length=segment_length,
            seed=seed,
            batch_size=batch_size,
            store=store,
            on_progress=on_progress,
            on_cell=None if keeps_earlier else write,
        )
        tokenizer = text.shards.tokenizer
        cells = evaluation.evaluate(model, text, tokenizer, run)
    if cells:
        write(cells)
        store.remove()
    return cells


def check_out(out: Path) -> bool:
    """Return whether a result file holds every cell of an earlier evaluation.

    Raises:
        ValueError: The name does not end in .json, or the file is no result.
    """
    if out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {out}.")
    if not out.exists():
        return False
    result = read_result(out)
    held = len(result["metrics"].get("cells", ()))
    return bool(held == result["config"].get("num_cells", held))
