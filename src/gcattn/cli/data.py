"""`gcattn data`: corpora and tokenizers from the command line."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gcattn.cli.limits import countable
from gcattn.cli.paths import expand
from gcattn.cli.progress import document_progress

if TYPE_CHECKING:
    from gcattn.data import TokenShards

data_app = typer.Typer(
    no_args_is_help=True,
    help="Make token shards for training and evaluation, and train tokenizers.",
)

_SHOWN_REPORTS = 20

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A parquet, jsonl, json or txt file, a folder of one of these, a glob pattern in "
        "quotes, or a Hugging Face dataset name such as emozilla/pg19.",
    ),
]
Out = Annotated[Path, typer.Option(callback=expand, help="Folder to create.")]
TextColumn = Annotated[str, typer.Option(help="Field that holds the text.")]
SourceSplit = Annotated[
    str | None,
    typer.Option(
        help="Split to read, if the source has splits (default: train); `all` reads every file, "
        "whatever its name."
    ),
]
SkipInvalid = Annotated[
    bool,
    typer.Option("--skip-invalid", help="Skip documents that cannot be read, and report them."),
]
ConfigName = Annotated[
    str | None, typer.Option(help="Configuration of a Hugging Face dataset, such as 3.0.0.")
]
MaxDocuments = Annotated[
    int | None, typer.Option(min=1, callback=countable, help="Stop after this many documents.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing folder of shards.")
]


@data_app.command()
def prepare(
    source: Source,
    out: Out,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            callback=expand, help="Folder or hub name of a tokenizer (default: the shipped one)."
        ),
    ] = None,
    text_column: TextColumn = "text",
    split: SourceSplit = None,
    config_name: ConfigName = None,
    max_documents: MaxDocuments = None,
    shard_tokens: Annotated[
        int, typer.Option(min=1, callback=countable, help="Close a shard after this many tokens.")
    ] = 2**28,
    skip_invalid: SkipInvalid = False,
    overwrite: Overwrite = False,
) -> None:
    """Encode SOURCE into token shards."""
    from gcattn.data import prepare_shards

    invalid: list[str] = []
    with document_progress("preparing", max_documents) as on_progress:
        shards = prepare_shards(
            source,
            out,
            tokenizer=tokenizer,
            text_column=text_column,
            split=split,
            config_name=config_name,
            max_documents=max_documents,
            shard_tokens=shard_tokens,
            overwrite=overwrite,
            on_invalid=invalid.append if skip_invalid else None,
            on_progress=on_progress,
        )
    _report(shards)
    _report_invalid(invalid)


@data_app.command()
def synthetic(
    out: Out,
    documents: Annotated[
        int, typer.Option(min=1, callback=countable, help="Number of documents.")
    ] = 1000,
    document_tokens: Annotated[
        int, typer.Option(callback=countable, help="Tokens per document.")
    ] = 4096,
    seed: Annotated[int, typer.Option(help="Seed of the corpus.")] = 0,
    split: Annotated[str, typer.Option(help="train or validation: disjoint names and codes.")] = (
        "train"
    ),
    recall_distance: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="LEAST MOST",
            help="Tokens between a fact and its recall (default: a third to all of the document).",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Generate the synthetic long-range corpus: documents that recall facts stated early."""
    from gcattn.data import prepare_synthetic_shards

    with document_progress("composing", documents) as on_progress:
        shards = prepare_synthetic_shards(
            out,
            documents,
            document_tokens,
            seed,
            split=split,  # type: ignore[arg-type]
            recall_distance=recall_distance,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    _report(shards)


@data_app.command()
def stories(
    out: Annotated[Path, typer.Option(callback=expand, help="File to write, .jsonl.")],
    documents: Annotated[
        int, typer.Option(min=1, callback=countable, help="Number of stories.")
    ] = 1000,
    tokens: Annotated[
        str, typer.Option(help="Maximum tokens per story, such as 2k or 256k; k is 1024.")
    ] = "2k",
    questions: Annotated[
        int, typer.Option(min=1, callback=countable, help="Questions per story.")
    ] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the stories.")] = 0,
    split: Annotated[
        str, typer.Option(help="train or validation: names, numbers and wordings are disjoint.")
    ] = "train",
    filler: Annotated[
        str | None,
        typer.Option(
            callback=expand,
            help="Source of the text between the facts (default: synthetic scenes).",
        ),
    ] = None,
    filler_split: Annotated[str | None, typer.Option(help="Split of the filler to read.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            callback=expand, help="Tokenizer that counts the tokens (default: the shipped one)."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write stories with questions about their facts, for training and testing."""
    from rich.console import Console

    from gcattn.data.stories.story_file import write_stories
    from gcattn.evals.lengths import parse_lengths

    lengths = parse_lengths(tokens)
    if len(lengths) > 1:
        raise ValueError(f"--tokens takes one length, got {tokens!r}.")
    with document_progress("telling", documents) as on_progress:
        file = write_stories(
            out,
            documents,
            lengths[0],
            num_questions=questions,
            split=split,  # type: ignore[arg-type]
            seed=seed,
            filler=filler,
            filler_split=filler_split,
            tokenizer=tokenizer,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    Console(soft_wrap=True).print(
        f"{file}: {documents:,} stories, {documents * questions:,} questions", highlight=False
    )


@data_app.command()
def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", callback=expand, help="Folder of token shards.")
    ],
) -> None:
    """Check all token shards against their checksums, and every id against the vocabulary.

    Shards written by an older release have no checksums; their ids and document ends are checked.
    """
    from gcattn.data import TokenShards
    from gcattn.storage.manifest import MANIFEST, check_folder

    shards = TokenShards(folder, check=False)
    check_folder(shards.folder, hash_up_to=None)
    shards.check_ids(shards.num_tokens)
    shards.check_ends()
    has_checksums = (shards.folder / MANIFEST).exists()
    print(
        f"{shards.folder}: {shards.num_documents:,} documents, {shards.num_tokens:,} tokens: "
        + ("as they were written" if has_checksums else "ids and bounds are in order")
    )
    if not has_checksums:
        print(
            f"It was written without checksums, so a changed token may go unnoticed; gcattn verify "
            f"{folder} --record writes those of the files as they are now."
        )


@data_app.command()
def tokenizer(
    source: Source,
    out: Out,
    vocab_size: Annotated[
        int, typer.Option(max=10_000_000, help="Number of tokens, special ones included.")
    ] = 16384,
    text_column: TextColumn = "text",
    split: SourceSplit = None,
    config_name: ConfigName = None,
    max_documents: MaxDocuments = None,
    skip_invalid: SkipInvalid = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing tokenizer.")
    ] = False,
) -> None:
    """Train a byte-level BPE tokenizer on SOURCE."""
    import itertools

    from rich.console import Console

    from gcattn.data import train_tokenizer
    from gcattn.data.documents import read_pieces

    invalid: list[str] = []
    on_invalid = invalid.append if skip_invalid else None
    texts = read_pieces(
        source,
        text_column=text_column,
        split=split,
        config_name=config_name,
        on_invalid=on_invalid,
    )
    console, work = Console(stderr=True), f"training a tokenizer of {vocab_size:,} tokens"
    if not console.is_terminal:
        print(f"{work} …", file=sys.stderr)
    with console.status(work) if console.is_terminal else nullcontext():
        folder = train_tokenizer(
            itertools.islice(texts, max_documents),
            vocab_size,
            out,
            overwrite=overwrite,
            on_invalid=on_invalid,
        )
    Console(soft_wrap=True).print(f"{folder}: tokenizer of {vocab_size:,} tokens")
    _report_invalid(invalid)


def _report(shards: TokenShards) -> None:
    from rich.console import Console

    Console(soft_wrap=True).print(
        f"{shards.folder}: {shards.num_documents:,} documents, {shards.num_tokens:,} tokens of "
        f"{shards.tokenizer_name} ({shards.num_bytes / shards.num_tokens:.2f} bytes per token)"
    )


def _report_invalid(reports: list[str]) -> None:
    """Report on standard error how much was skipped and why, with the first example."""
    if not reports:
        return
    print(f"left out as invalid: {len(reports):,}", file=sys.stderr)
    for report in reports[:_SHOWN_REPORTS]:
        print(f"  {report}", file=sys.stderr)
    if len(reports) > _SHOWN_REPORTS:
        print(f"  and {len(reports) - _SHOWN_REPORTS:,} more", file=sys.stderr)
