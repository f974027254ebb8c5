"""Options of the evaluations in a haystack, and the steps from options to cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gcattn.cli.evaluate import Device, Dtype, Tier, parse_changes
from gcattn.cli.limits import countable
from gcattn.cli.paths import expand
from gcattn.cli.progress import reading_progress

if TYPE_CHECKING:
    from gcattn.evals.cells import Cell
    from gcattn.evals.haystack_run import HaystackEvaluation

AnyCell = TypeVar("AnyCell", bound="Cell")

HaystackFolder = Annotated[
    Path | None,
    typer.Option(
        callback=expand,
        help="Folder of token shards to hide needles in (default: synthetic text).",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all samples.")]
SegmentLength = Annotated[
    int, typer.Option(min=1, callback=countable, help="Tokens read at a time; bounds memory.")
]
BatchSize = Annotated[
    int,
    typer.Option(min=1, max=65_536, help="Samples read together; faster for short contexts."),
]


def evaluate_in_haystack(
    make_evaluation: Callable[[], HaystackEvaluation[AnyCell]],
    model: str,
    haystack: Path | None,
    out: Path,
    *,
    samples: int,
    seed: int,
    segment_length: int,
    batch_size: int,
    memory_tier: Tier,
    changes: Sequence[str] | None,
    device: Device,
    dtype: Dtype,
) -> list[AnyCell]:
    """Check the options, load the model, and evaluate it with a progress bar."""
    from gcattn.evals.haystack_run import check_out, run_in_haystack
    from gcattn.evals.model_loading import load_causal_lm

    check_out(out)
    evaluation, changed = make_evaluation(), parse_changes(changes)
    causal_lm = load_causal_lm(
        model, device=device, dtype=dtype, memory_tier=memory_tier, changes=changed
    )
    with reading_progress() as on_progress:
        return run_in_haystack(
            evaluation,
            causal_lm,
            model,
            haystack,
            out,
            samples=samples,
            seed=seed,
            segment_length=segment_length,
            batch_size=batch_size,
            changes=changed,
            on_progress=on_progress,
        )
