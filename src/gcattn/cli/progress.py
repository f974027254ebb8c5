"""How far a command is: a bar on a terminal, a plain line now and then elsewhere.

Nothing is shown before there is something to show, so that a refusal stays one line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from gcattn.library.building import BuildProgress

# from one plain line to the next
LINE_SECONDS = 15.0


@contextmanager
def document_progress(verb: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Show documents, tokens and tokens per second while the block runs.

    Args:
        verb: What is done to the documents.
        total: How many there are, None if nobody knows.

    Yields:
        To be called with the numbers of documents and tokens so far.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    details = "{task.fields[tokens]:,} tokens · {task.fields[rate]:,.0f} tokens/s"
    columns = (
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("documents · " + details),
        TimeElapsedColumn(),
    )
    begin = time.monotonic()
    with _bar(columns) as (bar, say):
        task = None if bar is None else bar.add_task(verb, total=total, tokens=0, rate=0.0)

        def on_progress(num_documents: int, num_tokens: int) -> None:
            rate = num_tokens / max(time.monotonic() - begin, 1e-3)
            if bar is not None and task is not None:
                bar.start()
                bar.update(task, completed=num_documents, tokens=num_tokens, rate=rate)
            of = "" if total is None else f" of {total:,}"
            say(
                f"{verb}: {num_documents:,}{of} documents, {num_tokens:,} tokens, "
                f"{rate:,.0f} tokens/s"
            )

        yield on_progress
        if bar is not None and task is not None:
            bar.update(task, total=bar.tasks[task].completed)


@contextmanager
def reading_progress() -> Iterator[Callable[[int, int], None]]:
    """Show tokens read and the time left while the block runs.

    Yields:
        To be called with the tokens read so far and those to read in all.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("reading"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tokens ·"),
        TimeRemainingColumn(),
    )
    begin = time.monotonic()
    with _bar(columns) as (bar, say):
        task = None if bar is None else bar.add_task("reading", total=None)

        def on_progress(done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.start()
                bar.update(task, completed=done, total=total)
            left = (time.monotonic() - begin) * (total - done) / max(done, 1)
            share = done / max(total, 1)
            say(f"read {done:,} of {total:,} tokens, {share:.0%}, {_clock(left)} left")

        yield on_progress


@contextmanager
def library_progress(total_bytes: int) -> Iterator[Callable[[BuildProgress], None]]:
    """Show files, tokens, tokens per second and the time left while a library is read.

    Args:
        total_bytes: Bytes of all its files; the share of them that is read tells the time left.

    Yields:
        To be called when the reading begins, and after every block.
    """
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("reading"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]} ·"),
        TimeRemainingColumn(),
    )
    begin: float | None = None
    with _bar(columns) as (bar, say):
        task = None if bar is None else bar.add_task("reading", total=None, text="")

        def on_progress(done: BuildProgress) -> None:
            nonlocal begin
            if begin is None:  # loading the model took its time
                begin = time.monotonic()
                return
            seconds = max(time.monotonic() - begin, 1e-3)
            rate = f"{done.tokens / seconds:,.0f} tokens/s"
            text = f"{done.documents:,} files, {done.tokens:,} tokens, {rate}"
            total = max(total_bytes - done.skipped_bytes, done.num_bytes, 1)
            if bar is not None and task is not None:
                bar.start()
                bar.update(task, completed=done.num_bytes, total=total, text=text)
            left = seconds * (total - done.num_bytes) / max(done.num_bytes, 1)
            say(f"read {done.num_bytes / total:.0%}: {text}, {_clock(left)} left")

        yield on_progress


@contextmanager
def _bar(
    columns: tuple[ProgressColumn, ...],
) -> Iterator[tuple[Progress | None, Callable[[str], None]]]:
    """Yield a bar that is not yet started, on a terminal, and what prints a line elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if console.is_terminal:
        bar = Progress(*columns, console=Console(stderr=True))
        try:
            yield bar, lambda line: None
        finally:
            if bar.live.is_started:
                bar.stop()
        return
    last = time.monotonic()

    def say(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            console.print(line)
            last = time.monotonic()

    yield None, say


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
