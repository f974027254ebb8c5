"""`gcattn eval questions` and `gcattn eval summarization`: evaluation of fine-tuned models."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from gcattn.cli.evaluate import Changes, Device, Dtype, Model, Tier, parse_changes
from gcattn.cli.finetune import parse_columns
from gcattn.cli.limits import countable
from gcattn.cli.paths import RESULTS, expand
from gcattn.cli.progress import document_progress

BatchSize = Annotated[
    int, typer.Option(min=1, callback=countable, help="Documents summarized at a time.")
]
MaxDocuments = Annotated[
    int | None, typer.Option(min=1, callback=countable, help="Stop after this many documents.")
]
SegmentLength = Annotated[
    int, typer.Option(min=1, callback=countable, help="Tokens read at a time; bounds memory.")
]
Split = Annotated[str | None, typer.Option(help="Split to read, if the source has splits.")]


def questions(
    model: Model,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            callback=expand,
            help="Rows of document, question and answer (jsonl, json or parquet).",
        ),
    ],
    split: Split = None,
    max_documents: MaxDocuments = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, callback=countable, help="Longest answer, in tokens.")
    ] = 64,
    segment_length: SegmentLength = 16_384,
    memory_tier: Tier = None,
    changes: Changes = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[Path, typer.Option(callback=expand, help="Result file.")] = RESULTS
    / "questions.json",
) -> None:
    """Ask questions about documents, and count exact matches of the line that the model writes.

    Finished documents are kept beside the result until it is complete: the same command resumes an
    interrupted run.
    """
    from rich.console import Console

    from gcattn.data.examples import read_questions
    from gcattn.data.tokenizer_loading import load_tokenizer
    from gcattn.evals.answer_run import answer_run
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.evals.questions import evaluate_questions, metrics

    examples = list(itertools.islice(read_questions(data, split=split), max_documents))
    if not examples:
        raise ValueError(f"{data} holds no questions.")
    changed = parse_changes(changes)
    causal_lm = load_causal_lm(
        model, device=device, dtype=dtype, memory_tier=memory_tier, changes=changed
    )
    settings = {"max_new_tokens": max_new_tokens}
    run = answer_run(causal_lm, model, data, out, split=split, changes=changed, settings=settings)
    with document_progress("asking", len(examples)) as on_progress:
        answers = evaluate_questions(
            causal_lm,
            load_tokenizer(model),
            examples,
            segment_length=segment_length,
            most_new_tokens=max_new_tokens,
            store=run.store,
            on_progress=on_progress,
        )
    found = metrics(answers)
    file = run.finish(found, segment_length=segment_length)
    low, high = found["interval"]
    Console(soft_wrap=True).print(
        f"exact answers: {found['exact']}/{found['trials']} = {100 * found['accuracy']:.1f} % "
        f"(95 %: {100 * low:.1f}-{100 * high:.1f}), {found['documents']} documents, "
        f"{found['mean_tokens']:,.0f} tokens each\n{file}",
        highlight=False,
    )


def summarization(
    model: Model,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            callback=expand,
            help="Rows of document and summary, or a dataset's name.",
        ),
    ],
    split: Split = None,
    config_name: Annotated[
        str | None, typer.Option(help="Configuration of a dataset, such as 3.0.0.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="DOCUMENT,SUMMARY", help="Names of the columns (default: as for fine-tuning)."
        ),
    ] = None,
    max_documents: MaxDocuments = None,
    length: Annotated[
        int,
        typer.Option(
            min=2, callback=countable, help="Maximum tokens per document; longer ones are cut."
        ),
    ] = 8190,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, callback=countable, help="Longest summary, in tokens.")
    ] = 256,
    beams: Annotated[int, typer.Option(min=1, max=64, help="Number of beams.")] = 4,
    length_penalty: Annotated[
        float, typer.Option(help="Above 0 favours longer summaries, as in transformers.")
    ] = 1.0,
    no_repeat_ngram_size: Annotated[
        int,
        typer.Option(
            min=0,
            callback=countable,
            help="No summary repeats this many tokens in a row; 0 allows repeats.",
        ),
    ] = 3,
    label: Annotated[
        str | None, typer.Option(help="Name of the model in tables (default: its folder).")
    ] = None,
    data_label: Annotated[
        str | None, typer.Option(help="Name of the data in tables (default: their folder).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    segment_length: SegmentLength = 16_384,
    batch_size: BatchSize = 1,
    memory_tier: Tier = None,
    changes: Changes = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[Path, typer.Option(callback=expand, help="Result file.")] = RESULTS
    / "summarization.json",
) -> None:
    """Summarize documents with beam search; report ROUGE-1, -2 and -L with bootstrap intervals.

    Finished documents are kept beside the result until it is complete: the same command resumes an
    interrupted run.
    """
    from rich.console import Console

    from gcattn.data.examples import read_summaries
    from gcattn.data.tokenizer_loading import load_tokenizer
    from gcattn.evals.answer_run import answer_run
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.evals.plot import short_name
    from gcattn.evals.summaries import ROUGE, evaluate_summaries, metrics

    names = parse_columns(columns)
    read = read_summaries(data, split=split, config_name=config_name, columns=names)
    examples = list(itertools.islice(read, max_documents))
    if not examples:
        raise ValueError(f"{data} holds no documents with summaries.")
    search = {
        "length": length,
        "max_new_tokens": max_new_tokens,
        "beams": beams,
        "length_penalty": length_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
    }
    changed = parse_changes(changes)
    causal_lm = load_causal_lm(
        model, device=device, dtype=dtype, memory_tier=memory_tier, changes=changed
    )
    settings = {"dataset_config": config_name, "columns": names, **search}
    run = answer_run(causal_lm, model, data, out, split=split, changes=changed, settings=settings)
    with document_progress("summarizing", len(examples)) as on_progress:
        summaries = evaluate_summaries(
            causal_lm,
            load_tokenizer(model),
            examples,
            most_tokens=length,
            most_new_tokens=max_new_tokens,
            num_beams=beams,
            length_penalty=length_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            segment_length=segment_length,
            batch_size=batch_size,
            store=run.store,
            on_progress=on_progress,
        )
    found = metrics(summaries, seed)
    file = run.finish(
        found,
        seed=seed,
        label=label or short_name(Path(model)),
        data_label=data_label or short_name(Path(data)),
        segment_length=segment_length,
        batch_size=batch_size,
    )
    console = Console(soft_wrap=True)
    for name in ROUGE:
        score, lead = found["scores"][name], found["lead_scores"][name]
        console.print(
            f"{name}: {score['mean']:.2f} (95 %: {score['low']:.2f}-{score['high']:.2f}), first "
            f"three sentences: {lead['mean']:.2f}",
            highlight=False,
        )
    console.print(f"{found['trials']} documents, {found['num_cut']} cut\n{file}", highlight=False)


def summary_table(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS", help="Result files of gcattn eval summarization."),
    ],
) -> None:
    """Print results of several models and data sets as one Markdown table."""
    from gcattn.evals.summary_table import summary_table as lay_out
    from gcattn.results import read_result

    print(lay_out([read_result(file) for file in results]), end="")
