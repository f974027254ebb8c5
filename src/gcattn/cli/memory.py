"""`gcattn memory`: read files once into a saved memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcattn.cli.evaluate import Dtype
from gcattn.cli.limits import countable
from gcattn.cli.paths import expand
from gcattn.cli.progress import library_progress

if TYPE_CHECKING:
    from gcattn.library.building import BuildProgress

memory_app = typer.Typer(
    no_args_is_help=True, help="Read files once into a memory that you keep, extend and share."
)
_SHOWN_PROBLEMS = 20


def _expand_all(given: list[Path]) -> list[Path]:
    return [expand(path) for path in given]


Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES",
        help="Files and folders: text, Markdown, source code, HTML, and PDF with the extra `pdf`.",
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", callback=expand, help="Folder of a memory.")]
NewFolder = Annotated[Path, typer.Option(callback=expand, help="Folder to create.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=1024,
        help="Processes that tokenize ahead (default: 0 on a CPU, up to 8 on a GPU).",
    ),
]
BuildDevice = Annotated[
    str, typer.Option(help="cpu, cuda, or auto: the GPU if there is one; under torchrun, its own.")
]


@memory_app.command()
def build(
    files: Files,
    model: Annotated[
        str,
        typer.Option(callback=expand, help="Folder of a saved model, or owner/name on the hub."),
    ],
    out: NewFolder,
    keys_values: Annotated[
        bool,
        typer.Option(
            help="Keep keys and values. Without them a memory takes about a hundredth of the "
            "bytes, and retrieved chunks are recomputed."
        ),
    ] = True,
    block_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, callback=countable, help="Tokens read at a time; bounds device memory."
        ),
    ] = None,
    workers: Workers = None,
    device: BuildDevice = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Read FILES into a new memory; the same command resumes an interrupted build.

    With `torchrun --nproc-per-node N -m gcattn.cli memory build …`, N processes share the reading.
    """
    from dataclasses import replace

    from gcattn.library.making import build_library, default_settings

    def settings(loaded: Any) -> Any:
        chosen = default_settings(loaded, keys_values=keys_values)
        return chosen if block_tokens is None else replace(chosen, block_tokens=block_tokens)

    with _reading(files, out) as reports:
        build_library(
            files,
            out,
            model=model,
            device=device,
            dtype=dtype,
            settings=settings,
            num_workers=_num_workers(workers, device),
            **reports,
        )


@memory_app.command()
def append(
    folder: Folder,
    files: Files,
    model: Annotated[
        str | None,
        typer.Option(callback=expand, help="Folder of the model, if it has moved."),
    ] = None,
    workers: Workers = None,
    device: BuildDevice = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Add FILES to the memory in DIR; the files already in it are not read again."""
    from gcattn.library.making import append_to_library

    with _reading(files, folder) as reports:
        append_to_library(
            files,
            folder,
            model=model,
            device=device,
            dtype=dtype,
            num_workers=_num_workers(workers, device),
            **reports,
        )


@memory_app.command()
def info(
    folder: Folder,
    documents: Annotated[
        bool, typer.Option("--documents", help="Also list the files and their numbers.")
    ] = False,
) -> None:
    """Show what the memory in DIR contains and which model made it."""
    from gcattn.library.state import read_state
    from gcattn.memory.saved import open_memory

    memory, state = open_memory(folder), read_state(folder)
    description = memory.description
    typer.echo(_summary(folder))
    kept = "keys and values" if description.keys_values else "token ids, from which they are made"
    typer.echo(f"landmarks and {kept}, {description.dtype}")
    made_by = "" if state is None else f"{state.model}, "
    typer.echo(f"made by {made_by}weights {description.fingerprint[:12]}")
    if state is not None and state.unfinished is not None:
        typer.echo(f"not finished: {' '.join(state.unfinished)}; the same command continues")
    for document in memory.documents if documents else ():
        note = "deleted" if document.is_deleted else document.notes.get("problem", "")
        size = f"{document.num_tokens:,} tokens"
        typer.echo(f"{document.number} {document.name}: {size}" + (f" ({note})" if note else ""))


@memory_app.command()
def verify(folder: Folder) -> None:
    """Check every byte of the memory in DIR against its checksums."""
    from gcattn.library.state import read_state
    from gcattn.memory.saved import open_memory

    read_state(folder)
    open_memory(folder).verify()
    typer.echo(f"{_summary(folder)}: as it was written")


@memory_app.command()
def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIRS", callback=_expand_all, help="Folders of memories."),
    ],
    out: NewFolder,
) -> None:
    """Join memories made by the same model into a new one; no file is read again."""
    from gcattn.library.combining import merge_libraries

    merge_libraries(folders, out)
    typer.echo(_summary(out))


@memory_app.command()
def delete(
    folder: Folder,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES",
            help="Paths of files or folders as they were read, or numbers from info --documents.",
        ),
    ],
) -> None:
    """Delete FILES from the memory in DIR; they are never retrieved again.

    Their bytes stay in DIR until gcattn memory export writes a memory without them.
    """
    from gcattn.library.deleting import delete_from_library

    done = delete_from_library(folder, files)
    num_tokens = sum(document.num_tokens for document in done.deleted)
    before = len(done.deleted_before)
    typer.echo(
        f"{folder}: {len(done.deleted):,} files deleted, {num_tokens:,} tokens"
        + (f"; {before:,} had been deleted before" if before else "")
    )


@memory_app.command()
def export(folder: Folder, out: NewFolder) -> None:
    """Write a new memory without the files deleted from DIR."""
    from gcattn.library.combining import export_library

    export_library(folder, out)
    typer.echo(_summary(out))


@contextmanager
def _reading(files: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Show progress, and at the end what was read."""
    from gcattn.library.files import find_files
    from gcattn.library.ranks import Ranks, joined_processes

    problems: list[str] = []
    with joined_processes():
        is_first = Ranks().writes
        total = sum(file.num_bytes for file in find_files(files)) if is_first else 0
        with library_progress(total) as on_progress:

            def report(done: BuildProgress) -> None:
                on_progress(done)

            yield {"on_progress": report, "on_problem": problems.append}
        if not is_first:
            return
    typer.echo(_summary(folder))
    if problems:
        print(f"left out: {len(problems):,} files", file=sys.stderr)
    for problem in problems[:_SHOWN_PROBLEMS]:
        print(f"  {problem}", file=sys.stderr)
    if len(problems) > _SHOWN_PROBLEMS:
        print(f"  and {len(problems) - _SHOWN_PROBLEMS:,} more", file=sys.stderr)


def _summary(folder: Path) -> str:
    from gcattn.memory.saved import open_memory

    memory = open_memory(folder)
    size = sum(part.bytes for part in memory.description.parts)
    per_token = size / max(memory.num_tokens, 1)
    num_deleted = memory.documents.num_deleted
    deleted = f" ({num_deleted:,} deleted)" if num_deleted else ""
    return (
        f"{folder}: {len(memory.documents):,} files{deleted}, {memory.num_tokens:,} tokens in "
        f"{memory.num_chunks:,} chunks, {size / 1e6:,.1f} MB ({per_token:,.0f} bytes per token)"
    )


def _num_workers(asked: int | None, device: str) -> int:
    import os

    import torch

    if asked is not None:
        return asked
    if device == "cpu" or not torch.cuda.is_available():
        return 0  # the model can use every core
    return min(8, max((os.cpu_count() or 2) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 1))
