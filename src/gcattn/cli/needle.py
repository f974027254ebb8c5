"""`gcattn eval needle`: does a model find what was hidden in a long text?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gcattn.cli.evaluate import Changes, Device, Dtype, Model, Tier
from gcattn.cli.haystack import (
    BatchSize,
    HaystackFolder,
    Seed,
    SegmentLength,
    evaluate_in_haystack,
)
from gcattn.cli.paths import RESULTS, expand
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
            min=1, max=10_000, help="Depths of the needle, evenly spaced from start to end."
        ),
    ] = 10,
    samples: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Samples at each length and depth.")
    ] = 3,
    haystack: HaystackFolder = None,
    seed: Seed = 0,
    segment_length: SegmentLength = 16_384,
    batch_size: BatchSize = 1,
    memory_tier: Tier = None,
    memory: Annotated[
        Path | None,
        typer.Option(
            callback=expand,
            help="Hide all samples of a task and length in one context, read it once into a memory "
            "in this folder, and ask each question on its own. Under torchrun, processes share "
            "the reading.",
        ),
    ] = None,
    changes: Changes = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[
        Path, typer.Option(callback=expand, help="Result file; the plot goes beside it.")
    ] = RESULTS / "needle.json",
) -> None:
    """Hide needles in long texts and ask for them; the whole greedy answer must match.

    The result is written after every cell, and finished cells are kept beside it until it is
    complete: the same command resumes an interrupted evaluation.
    """
    from gcattn.evals.lengths import parse_lengths
    from gcattn.evals.needle_evaluation import needle_evaluation
    from gcattn.evals.needle_plot import plot_needles
    from gcattn.evals.plot import short_name
    from gcattn.library.ranks import joined_processes

    with joined_processes() if memory is not None else nullcontext():
        cells = evaluate_in_haystack(
            lambda: needle_evaluation(tasks, parse_lengths(lengths), depths, memory, memory_tier),
            model,
            haystack,
            out,
            samples=samples,
            seed=seed,
            segment_length=segment_length,
            batch_size=batch_size,
            memory_tier=memory_tier,
            changes=changes,
            device=device,
            dtype=dtype,
        )
    if not cells:  # a process that only helped to read
        return
    picture = out.with_suffix(".png")
    where = "synthetic text" if haystack is None else short_name(haystack)
    plot_needles(cells, f"{short_name(Path(model))} on {where}", picture)
    _report(cells, out, picture)


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
    """Write what a context takes on the device, on the host and, if anything, on disk."""
    held = [summary.device_bytes, summary.host_bytes, summary.disk_bytes or None]
    sizes = [f"{size / 2**20:,.1f}" for size in held if size is not None]
    return f"{' + '.join(sizes)} MiB" if sizes else "-"
