"""`gcattn finetune`: teach a saved model the questions of a field, or to summarize."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcattn.cli.limits import countable
from gcattn.cli.paths import expand
from gcattn.cli.progress import document_progress

if TYPE_CHECKING:
    from gcattn.train.finetune import FineTuning

finetune_app = typer.Typer(
    no_args_is_help=True, help="Fine-tune a saved model to answer questions or to summarize."
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="Overrides of the training configuration, such as training.batch_size=1.",
    ),
]
Model = Annotated[
    str, typer.Option(callback=expand, help="Folder of the saved model to start from.")
]
Out = Annotated[str, typer.Option(callback=expand, help="Folder of the run.")]
Epochs = Annotated[float, typer.Option(help="Passes over the examples.")]
MaxExamples = Annotated[
    int | None,
    typer.Option(min=1, callback=countable, help="Use at most this many training examples."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue from the newest checkpoint in --out.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Delete the run in --out and start again.")
]


@finetune_app.command()
def questions(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            callback=expand,
            help="Rows of document, question and answer (jsonl, json or parquet).",
        ),
    ],
    model: Model,
    out: Out,
    overrides: Overrides = None,
    validation: Annotated[
        str | None,
        typer.Option(callback=expand, help="Held-out rows to measure the loss on during training."),
    ] = None,
    epochs: Epochs = 3.0,
    sequence_length: Annotated[
        int | None,
        typer.Option(
            min=2,
            callback=countable,
            help="Tokens per row (default: those of the longest example).",
        ),
    ] = None,
    max_examples: MaxExamples = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Teach a model to answer questions about documents.

    Only the answers have a loss, and chunks close where those of a prompt do. Consecutive rows
    with the same document are one example. Ask the model in the same form: the document, then
    "Question: …" and "Answer:" on lines of their own.

    On several GPUs: torchrun --nproc_per_node N -m gcattn.cli finetune questions …
    """
    from gcattn.data.examples import read_questions
    from gcattn.train.finetune import FineTuning

    task = FineTuning(
        model=model,
        output=out,
        train=data,
        validation=validation,
        read=read_questions,
        reading={"form": "questions"},
        sequence_length=sequence_length,
        max_examples=max_examples,
        epochs=epochs,
        overrides=overrides or (),
    )
    _run(task, resume=resume, overwrite=overwrite)


@finetune_app.command()
def summarization(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            callback=expand,
            help="Rows of document and summary: a parquet or jsonl file or folder, or a dataset "
            "such as EdinburghNLP/xsum.",
        ),
    ],
    model: Model,
    out: Out,
    overrides: Overrides = None,
    validation: Annotated[
        str | None,
        typer.Option(callback=expand, help="Held-out rows to measure the loss on during training."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split to read, if the source has splits (default: train)."),
    ] = None,
    config_name: Annotated[
        str | None, typer.Option(help="Configuration of a dataset, such as 3.0.0.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="DOCUMENT,SUMMARY",
            help="Names of the columns (default: those of XSum, CNN/DailyMail, or text,summary).",
        ),
    ] = None,
    epochs: Epochs = 3.0,
    sequence_length: Annotated[
        int,
        typer.Option(min=2, callback=countable, help="Tokens per row; longer documents are cut."),
    ] = 8190,
    max_examples: MaxExamples = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Teach a model to summarize documents.

    Only the summary has a loss, and the chunk closes where the prompt ends. Every model of this
    package can be taught: DRTs and those with sliding-window, full or Landmark Attention.

    On several GPUs: torchrun --nproc_per_node N -m gcattn.cli finetune summarization …
    """
    from gcattn.data.examples import read_summaries
    from gcattn.train.finetune import FineTuning

    names = parse_columns(columns)
    task = FineTuning(
        model=model,
        output=out,
        train=data,
        validation=validation,
        read=partial(read_summaries, split=split, config_name=config_name, columns=names),
        reading={"form": "summaries", "split": split, "config": config_name, "columns": names},
        sequence_length=sequence_length,
        max_examples=max_examples,
        epochs=epochs,
        overrides=overrides or (),
    )
    _run(task, resume=resume, overwrite=overwrite)


def parse_columns(columns: str | None) -> tuple[str, str] | None:
    """Read DOCUMENT,SUMMARY.

    Raises:
        ValueError: There are not two names.
    """
    if columns is None:
        return None
    names = [name.strip() for name in columns.split(",")]
    if len(names) != 2 or not all(names):
        raise ValueError(f"--columns takes DOCUMENT,SUMMARY, got {columns!r}.")
    return names[0], names[1]


def _run(task: FineTuning, **options: Any) -> None:
    from rich.console import Console

    from gcattn.cli.train import end_run
    from gcattn.train.finetune import fine_tune

    console = Console(stderr=True)
    with document_progress("encoding", None) as on_progress:
        outcome = fine_tune(task, console=console, on_progress=on_progress, **options)
    end_run(outcome, console)
