"""`gcattn eval needle`: does a model find what was hidden in a long text?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gcattn.cli.evaluate import (
    Changes,
    Device,
    Dtype,
    Model,
    Tier,
    is_whole,
    parse_changes,
    short_name,
)
from gcattn.cli.limits import MOST
from gcattn.cli.paths import RESULTS, check_writable, expand
from gcattn.cli.progress import reading_progress
from gcattn.cli.table_printing import print_table

if TYPE_CHECKING:
    from gcattn.evals.needle_cells import NeedleCell
    from gcattn.evals.needle_report import NeedleSummary


def needle(
    model: Model,
    tasks: Annotated[
        str,
        typer.Option(
            help="Tasks such as single,multi-key,two-hop:12 (a count after the colon), or all."
        ),
    ] = "single",
    lengths: Annotated[
        str, typer.Option(help="Context lengths in tokens, such as 4k,64k,1m,16m; k is 1024.")
    ] = "1k,4k,16k",
    depths: Annotated[
        int,
        typer.Option(
            min=1, max=10_000, help="Depths of the needle, in even steps from start to end."
        ),
    ] = 10,
    samples: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Samples at each length and depth.")
    ] = 3,
    haystack: Annotated[
        Path | None,
        typer.Option(
            callback=expand,
            help="Folder of token shards to hide needles in (default: made-up text).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes all samples.")] = 0,
    segment_length: Annotated[
        int, typer.Option(min=1, max=MOST, help="Tokens read at a time; bounds memory.")
    ] = 16_384,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1, max=65_536, help="Samples read side by side; faster for short contexts."
        ),
    ] = 1,
    memory_tier: Tier = None,
    changes: Changes = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[
        Path, typer.Option(callback=expand, help="Result file; the picture goes beside it.")
    ] = RESULTS / "needle.json",
) -> None:
    """Hide needles in long texts and ask for them: exact match of the whole greedy answer.

    The result is written after every cell, and finished cells are kept beside it until it is
    whole: the same command goes on where one was interrupted.
    """
    from gcattn.data.needle_tasks import TASK_NAMES, NeedleTask, NeedleVocabulary
    from gcattn.data.shard_index import INDEX_FILE, sha256_of
    from gcattn.data.tokenizer_loading import load_tokenizer
    from gcattn.evals.cell_store import CellStore
    from gcattn.evals.lengths import parse_lengths
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.evals.needle_cells import evaluate_needles, even_depths, weights_fingerprint
    from gcattn.evals.needle_haystack import open_haystack
    from gcattn.evals.needle_plot import plot_needles
    from gcattn.evals.needle_report import metrics
    from gcattn.results import write_result

    if out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {out}.")
    names = TASK_NAMES if tasks.strip() == "all" else tuple(tasks.split(","))
    wanted = [NeedleTask.parse(name) for name in names]
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"Tasks must differ, got {tasks!r}.")
    all_lengths, all_depths = parse_lengths(lengths), even_depths(depths)
    # a whole result of an earlier run stays until there is a whole one in its place
    keeps_earlier = is_whole(out)
    changed = parse_changes(changes)
    causal_lm = load_causal_lm(
        model, device=device, dtype=dtype, memory_tier=memory_tier, changes=changed
    )
    with open_haystack(haystack, model, causal_lm, seed) as text:
        check_writable(out.parent)
        vocabulary = NeedleVocabulary(load_tokenizer(text.shards.tokenizer_folder), "validation")
        settings = {
            "weights_sha256": weights_fingerprint(causal_lm),
            "haystack_sha256": sha256_of(text.shards.folder / INDEX_FILE),
            "haystack_tokens": text.num_tokens,
            "seed": seed,
            "dtype": str(causal_lm.dtype).removeprefix("torch."),
        }
        store = CellStore(out.with_suffix(".cells"), settings)
        num_cells = len(wanted) * len(all_lengths) * len(all_depths)
        config = {
            "model": model,
            "model_type": causal_lm.config.model_type,
            "parameters": causal_lm.num_parameters(),
            "haystack": "made-up text" if haystack is None else str(haystack),
            "tasks": [str(task) for task in wanted],
            "lengths": all_lengths,
            "depths": all_depths,
            "samples": samples,
            "segment_length": segment_length,
            "batch_size": batch_size,
            "memory_tier": getattr(causal_lm.config, "memory_tier", None),
            "changes": changed,
            "device": str(causal_lm.device),
            **settings,
            "num_cells": num_cells,
        }

        def write(cells: Sequence[NeedleCell]) -> Path:
            return write_result(
                out.stem, config, metrics(cells), folder=out.parent, seed=seed, trials=samples
            )

        def write_unfinished(cells: Sequence[NeedleCell]) -> None:
            if not keeps_earlier:
                write(cells)

        with reading_progress() as on_progress:
            cells = evaluate_needles(
                causal_lm,
                text,
                vocabulary,
                wanted,
                all_lengths,
                all_depths,
                samples,
                seed=seed,
                segment_length=segment_length,
                batch_size=batch_size,
                store=store,
                on_progress=on_progress,
                on_cell=write_unfinished,
            )
    file = write(cells)
    picture = file.with_suffix(".png")
    where = "made-up text" if haystack is None else short_name(haystack)
    plot_needles(cells, f"{short_name(Path(model))} on {where}", picture)
    store.remove()
    _report(cells, file, picture)


def _report(cells: Sequence[NeedleCell], file: Path, picture: Path) -> None:
    """Print one line for each task and length, why samples failed, and where the files are."""
    from rich.console import Console
    from rich.table import Table

    from gcattn.evals.lengths import format_length
    from gcattn.evals.needle_report import by_task_and_length

    table = Table(
        "task",
        "length",
        "whole answer",
        "95 % interval",
        "teacher-forced first token",
        "wrong chunk",
        "right chunk, wrong token",
        "s/sample",
        "memory",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for (task, length), summary in by_task_and_length(cells).items():
        failures = summary.failures
        table.add_row(
            task,
            format_length(length),
            f"{summary.exact}/{summary.trials} = {100 * summary.accuracy:.1f} %",
            f"{100 * summary.interval.low:.1f}-{100 * summary.interval.high:.1f} %",
            f"{100 * summary.teacher_forced_first_token:.1f} %",
            "-" if summary.retrieved is None else str(failures.get("wrong_chunk", 0)),
            "-" if summary.retrieved is None else str(failures.get("right_chunk_wrong_token", 0)),
            f"{summary.seconds:.2f}",
            _memory(summary),
        )
    console = Console(soft_wrap=True)
    print_table(console, table, num_labels=2)
    console.print(f"{file}\n{picture}", highlight=False)


def _memory(summary: NeedleSummary) -> str:
    """Write what a context takes on the device and on the host."""
    if summary.device_bytes is None or summary.host_bytes is None:
        return "-"
    return f"{summary.device_bytes / 2**20:,.1f} + {summary.host_bytes / 2**20:,.1f} MiB"
