"""`gcattn eval ruler`: RULER's thirteen tasks, generated here for any length."""

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
)
from gcattn.cli.limits import MOST
from gcattn.cli.paths import RESULTS, check_writable, expand
from gcattn.cli.progress import reading_progress
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
        int, typer.Option(min=1, max=1_000_000, help="Samples of each task and length.")
    ] = 30,
    haystack: Annotated[
        Path | None,
        typer.Option(
            callback=expand,
            help="Folder of token shards to hide needles in (default: synthetic text).",
        ),
    ] = None,
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
    out: Annotated[Path, typer.Option(callback=expand, help="Result file.")] = RESULTS
    / "ruler.json",
) -> None:
    """Run RULER's tasks: needles, variable tracking, word counts and questions.

    The result is written after every task and length, and finished ones are kept beside it until
    it is whole: the same command resumes an interrupted run.
    """
    from gcattn.data.ruler import RULER_TASKS, RulerSource, read_hotpotqa, read_squad
    from gcattn.data.ruler.tasks import check_ruler_task
    from gcattn.data.shard_index import INDEX_FILE, sha256_of
    from gcattn.data.tokenizer_loading import load_tokenizer
    from gcattn.evals.cell_store import CellStore
    from gcattn.evals.lengths import parse_lengths
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.evals.needle_cells import weights_fingerprint
    from gcattn.evals.needle_haystack import open_haystack
    from gcattn.evals.ruler import evaluate_ruler
    from gcattn.evals.ruler_report import metrics
    from gcattn.results import write_result

    if out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {out}.")
    groups = {
        "all": RULER_TASKS,
        "niah": tuple(name for name in RULER_TASKS if name.startswith("niah")),
    }
    wanted = groups.get(tasks.strip()) or tuple(
        check_ruler_task(name.strip()) for name in tasks.split(",")
    )
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"Tasks must differ, got {tasks!r}.")
    all_lengths = parse_lengths(lengths)
    pools = {}
    if squad is not None:
        pools["qa_1"] = read_squad(squad)
    if hotpotqa is not None:
        pools["qa_2"] = read_hotpotqa(hotpotqa)
    # a whole result of an earlier run stays until there is a whole one in its place
    keeps_earlier = is_whole(out)
    changed = parse_changes(changes)
    causal_lm = load_causal_lm(
        model, device=device, dtype=dtype, memory_tier=memory_tier, changes=changed
    )
    with open_haystack(haystack, model, causal_lm, seed) as text:
        check_writable(out.parent)
        tokenizer = load_tokenizer(text.shards.tokenizer_folder)
        files = {name: file for name, file in (("squad", squad), ("hotpotqa", hotpotqa)) if file}
        settings = {
            "weights_sha256": weights_fingerprint(causal_lm),
            "haystack_sha256": sha256_of(text.shards.folder / INDEX_FILE),
            "haystack_tokens": text.num_tokens,
            "seed": seed,
            "dtype": str(causal_lm.dtype).removeprefix("torch."),
            "questions_sha256": {name: sha256_of(file) for name, file in files.items()},
        }
        store = CellStore(out.with_suffix(".cells"), settings)
        config = {
            "model": model,
            "model_type": causal_lm.config.model_type,
            "parameters": causal_lm.num_parameters(),
            "haystack": "synthetic text" if haystack is None else str(haystack),
            "questions": {name: str(file) for name, file in files.items()},
            "tasks": list(wanted),
            "lengths": all_lengths,
            "samples": samples,
            "segment_length": segment_length,
            "batch_size": batch_size,
            "memory_tier": getattr(causal_lm.config, "memory_tier", None),
            "changes": changed,
            "device": str(causal_lm.device),
            **settings,
            "num_cells": len(wanted) * len(all_lengths),
        }

        def write(cells: Sequence[RulerCell]) -> Path:
            return write_result(
                out.stem, config, metrics(cells), folder=out.parent, seed=seed, trials=samples
            )

        def write_unfinished(cells: Sequence[RulerCell]) -> None:
            if not keeps_earlier:
                write(cells)

        with reading_progress() as on_progress:
            cells = evaluate_ruler(
                causal_lm,
                tokenizer,
                RulerSource(tokenizer, text, pools),
                wanted,
                all_lengths,
                samples,
                seed=seed,
                segment_length=segment_length,
                batch_size=batch_size,
                store=store,
                on_progress=on_progress,
                on_cell=write_unfinished,
            )
    file = write(cells)
    store.remove()
    _report(cells, file)


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
