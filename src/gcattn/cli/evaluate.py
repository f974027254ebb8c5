"""`gcattn eval`: evaluate a saved model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS, expand
from gcattn.cli.progress import reading_progress
from gcattn.cli.table_printing import print_table

if TYPE_CHECKING:
    from gcattn.evals.perplexity_run import PerplexityRun

eval_app = typer.Typer(no_args_is_help=True, help="Evaluate a saved model.")

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        callback=expand,
        help="Folder of a saved model, or owner/name on the Hugging Face hub.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: the GPU if there is one.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        help="Number format of the weights; auto: as saved, float32 where a CPU is slow in it."
    ),
]
Tier = Annotated[
    Literal["device", "host", "host-int8", "disk", "recompute"] | None,
    typer.Option(help="Where a DRT keeps its memory (default: the configuration's)."),
]

Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field of a DRT's configuration, as in retrieval_top_k=4; repeatable.",
    ),
]


@eval_app.command()
def perplexity(
    model: Model,
    data: Annotated[
        Path, typer.Option(callback=expand, help="Folder of token shards (gcattn data prepare).")
    ],
    lengths: Annotated[
        str, typer.Option(help="Context lengths in tokens, such as 1k,4k,16k; k is 1024.")
    ] = "1k,4k,16k",
    segment_length: Annotated[
        int, typer.Option(min=1, callback=countable, help="Tokens read at a time; bounds memory.")
    ] = 4096,
    max_documents: Annotated[
        int | None,
        typer.Option(min=1, callback=countable, help="Maximum documents per length."),
    ] = None,
    memory_tier: Tier = None,
    changes: Changes = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[
        Path, typer.Option(callback=expand, help="Result file; the plot goes beside it.")
    ] = RESULTS / "perplexity.json",
) -> None:
    """Measure loss, perplexity and bits per byte by context length and position.

    Each length is measured on the documents that have at least that many tokens.
    """
    from gcattn.data import TokenShards
    from gcattn.evals.haystack_run import check_out
    from gcattn.evals.lengths import parse_lengths
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.evals.perplexity_run import run_perplexity

    check_out(out)
    wanted = parse_lengths(lengths)
    shards = TokenShards(data)
    changed = parse_changes(changes)
    causal_lm = load_causal_lm(
        model, device=device, dtype=dtype, memory_tier=memory_tier, changes=changed
    )
    with reading_progress() as on_progress:
        run = run_perplexity(
            causal_lm,
            model,
            shards,
            data,
            out,
            lengths=wanted,
            segment_length=segment_length,
            max_documents=max_documents,
            changes=changed,
            on_progress=on_progress,
        )
    _report(run)


def parse_changes(changes: Sequence[str] | None) -> dict[str, Any]:
    """Read FIELD=VALUE; values are JSON, and text where they are none.

    Raises:
        ValueError: There is no equals sign, or a number of too many digits.
    """
    parsed = {}
    for change in changes or ():
        field, sign, value = change.partition("=")
        if not (field and sign):
            raise ValueError(f"--set takes FIELD=VALUE, such as retrieval_top_k=4, got {change!r}.")
        try:
            parsed[field] = json.loads(value)
        except json.JSONDecodeError:
            parsed[field] = value
        except (ValueError, RecursionError) as error:
            raise ValueError(f"--set {field}: the text after = is not a value.") from error
    return parsed


def _report(run: PerplexityRun) -> None:
    """Print one line for each length and where the files are."""
    from rich.console import Console
    from rich.table import Table

    from gcattn.evals.lengths import format_length

    table = Table("length", "documents", "nats/token", "± s.e.", "perplexity", "bits/byte")
    for column in table.columns:
        column.justify = "right"
    for result in run.results:
        error = result.loss.standard_error
        table.add_row(
            format_length(result.length),
            f"{result.num_documents:,}",
            f"{result.loss.mean:.4f}",
            "-" if error is None else f"{error:.4f}",
            f"{result.perplexity:.2f}",
            f"{result.bits_per_byte.mean:.4f}",
        )
    console = Console(soft_wrap=True)
    print_table(console, table, num_labels=1)
    console.print(
        f"unigram entropy of the data: {run.unigram_entropy:.4f} nats/token", highlight=False
    )
    console.print(f"{run.file}\n{run.picture}", highlight=False)
