"""`gcattn eval ruler`: RULER's thirteen tasks, generated here for any length."""

from __future__ import annotations

from collections.abc import Sequence
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
    from gcattn.evals.ruler import RulerCell


def ruler(
    model: Model,
    tasks: Annotated[
        str, typer.Option(help="Tasks such as niah_single_1,vt, or niah, or all.")
    ] = "all",
    lengths: Annotated[
        str, typer.Option(help="Lengths in tokens, such as 4k,64k,1m; k is 1024.")
    ] = "4k",
    samples: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Samples per task and length.")
    ] = 30,
    haystack: HaystackFolder = None,
    squad: Annotated[
        Path | None,
        typer.Option(
            callback=expand, help="File in SQuAD's format for qa_1 (default: generated stories)."
        ),
    ] = None,
    hotpotqa: Annotated[
        Path | None,
        typer.Option(
            callback=expand, help="File in HotpotQA's format for qa_2 (default: generated stories)."
        ),
    ] = None,
    seed: Seed = 0,
    segment_length: SegmentLength = 16_384,
    batch_size: BatchSize = 1,
    memory_tier: Tier = None,
    changes: Changes = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[Path, typer.Option(callback=expand, help="Result file.")] = RESULTS
    / "ruler.json",
) -> None:
    """Run RULER's tasks: needles, variable tracking, word counts and questions.

    The result is written after every task and length, and finished ones are kept beside it until
    it is complete: the same command resumes an interrupted run.
    """
    from gcattn.evals.lengths import parse_lengths
    from gcattn.evals.ruler_evaluation import ruler_evaluation

    cells = evaluate_in_haystack(
        lambda: ruler_evaluation(tasks, parse_lengths(lengths), squad=squad, hotpotqa=hotpotqa),
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
    _report(cells, out)


def _report(cells: Sequence[RulerCell], file: Path) -> None:
    """Print one line for each task and length, the means, and where the file is."""
    from rich.console import Console
    from rich.table import Table

    from gcattn.evals.lengths import format_length
    from gcattn.evals.ruler_report import metrics

    table = Table(
        "task", "length", "score", "95 % interval", "all found", "begins right", "s/sample"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    found = metrics(cells)
    for cell in found["cells"]:
        low, high = cell["interval"]
        table.add_row(
            cell["task"],
            format_length(cell["length"]),
            f"{100 * cell['score']:.1f}",
            f"{100 * low:.1f}-{100 * high:.1f}",
            f"{cell['all_found']}/{cell['trials']}",
            f"{cell['begins_right']}/{cell['trials']}",
            f"{cell['seconds']:.2f}",
        )
    console = Console(soft_wrap=True)
    print_table(console, table, num_labels=2)
    for mean in found["mean_by_length"]:
        console.print(
            f"mean of {mean['tasks']} tasks at {format_length(mean['length'])}: "
            f"{100 * mean['score']:.1f}",
            highlight=False,
        )
    console.print(str(file), highlight=False)
