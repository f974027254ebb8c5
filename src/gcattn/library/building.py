"""Build a memory of files, or add files to one, and continue where a killed run stopped.

find_files ─ group_files ─ EncodingPool ─ segments ─ begin_block ─ Ranks ─ MemoryWriter

What a killed run had not written is read again in the same blocks, so the memory equals, bit for
bit, that of a run that was never interrupted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.library.blocks import (
    BYTES_PER_TOKEN,
    FileGroup,
    TokenBlock,
    block_of,
    group_files,
    segments,
)
from gcattn.library.encoding import EncodedText, EncodingPool, Job, in_words
from gcattn.library.files import find_files
from gcattn.library.in_order import InOrder
from gcattn.library.marked_text import MarkedText, cut
from gcattn.library.ranks import Begun, Ranks
from gcattn.library.readers import kind_of, read_file
from gcattn.library.reading import ReadBlock, begin_block
from gcattn.library.runs import Place, check_names, cursor_of, place_of, run_on
from gcattn.library.state import STATE_FILE, LibraryState
from gcattn.storage.whole import remove_unfinished

if TYPE_CHECKING:
    from gcattn.memory.saved import MemoryWriter

# parts of a large file that are encoded by one job, each of about 2 ** 16 characters
_PARTS_PER_JOB = 8


@dataclass(frozen=True)
class BuildProgress:
    """Progress of a run, without what it read before it was killed.

    Attributes:
        documents: Documents read.
        tokens: Tokens read.
        num_bytes: Bytes of their files.
        skipped_bytes: Bytes of the files that had been read before.
    """

    documents: int
    tokens: int
    num_bytes: int
    skipped_bytes: int


def read_into(
    folder: Path,
    sources: tuple[str, ...],
    model: Any,
    tokenizer: str,
    *,
    begin: LibraryState | None,
    num_workers: int = 0,
    on_progress: Callable[[BuildProgress], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
) -> None:
    """Read files into the memory in `folder`; after a kill, the same call continues.

    Args:
        folder: Folder of the memory.
        sources: Files and folders.
        model: A `DRTForCausalLM` in evaluation mode.
        tokenizer: Its tokenizer, as the JSON of the tokenizers library.
        begin: State of a new memory; None: add to an existing one.
        num_workers: Processes that tokenize ahead.
        on_progress: Called before the first block and after every one, in the process that writes.
        on_problem: Called with each file of a folder that could not be read; for a file that was
            named itself this is an error.

    Raises:
        FileNotFoundError: A source does not exist, or there is no memory.
        FileExistsError: There is one, and `begin` asks for a new one.
        ValueError: A file cannot be read, the memory is damaged or of another model, or another
            run on it is not finished.
    """
    from gcattn.memory.saved import MemoryWriter

    ranks = Ranks()
    state: LibraryState = ranks.agree(lambda: run_on(folder, sources, begin))
    settings = state.settings
    with ExitStack() as opened:
        writer: Any = None

        def prepare() -> tuple[LibraryState, Place]:
            nonlocal writer
            writer = opened.enter_context(
                MemoryWriter(
                    folder,
                    model,
                    keys_values=settings.keys_values,
                    part_bytes=settings.part_bytes,
                )
            )
            remove_unfinished(folder / STATE_FILE)
            run = state
            if run.unfinished is None:
                run = run.begun(sources, writer.num_documents)
                run.write(folder)
            place = place_of(writer.cursor, run)
            check_names(folder, run, settings.block_tokens, place)
            return run, place

        run, place = ranks.agree(prepare)
        writing = opened.enter_context(InOrder())
        reading = _Reading(model, tokenizer, run, ranks, num_workers)
        documents = tokens = num_bytes = 0
        if on_progress is not None and writer is not None:
            on_progress(BuildProgress(0, 0, 0, 0))
        for (group, segment), block in reading.blocks(sources, place):
            if block is None:
                continue
            place = Place(group.number + 1) if block.is_last else Place(group.number, segment + 1)
            writing.do(partial(_write, writer, group, segment, block, cursor_of(run, place)))
            for problem in filter(None, block.problems):
                if on_problem is not None:
                    on_problem(problem)
            documents += len(block.counts) if block.is_last else 0
            tokens += len(block.token_ids)
            num_bytes += (
                group.num_bytes - segment * settings.block_tokens * BYTES_PER_TOKEN
                if block.is_last
                else settings.block_tokens * BYTES_PER_TOKEN
            )
            if on_progress is not None:
                skipped = reading.skipped_bytes
                on_progress(BuildProgress(documents, tokens, num_bytes, skipped))
        writing.finish()
        if writer is not None:
            writer.close(cursor_of(run, place))
            run.finished().write(folder)
    ranks.wait()


class _Reading:
    """One process's share of a run: what it encodes, reads and sends to the first process."""

    def __init__(
        self, model: Any, tokenizer: str, run: LibraryState, ranks: Ranks, num_workers: int
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = run.settings
        self._block_tokens = run.settings.block_tokens
        self._ranks = ranks
        self._num_workers = num_workers
        self.skipped_bytes = 0

    def blocks(
        self, sources: Iterable[str], place: Place
    ) -> Iterator[tuple[tuple[FileGroup, int], ReadBlock | None]]:
        """Yield each block from `place` on: its group and segment, and in the first process it."""
        return self._ranks.in_turn(self._begun(sources, place))

    def _begun(
        self, sources: Iterable[str], place: Place
    ) -> Iterator[Begun[tuple[FileGroup, int]]]:
        groups = self._from(group_files(find_files(sources), self._block_tokens), place)
        with EncodingPool(self._tokenizer, self._num_workers) as pool:
            encoded = pool.encode(self._jobs(groups, pool))
            for group, texts in _by_group(encoded):
                skipped = place.segment if group.number == place.group else 0
                for segment, block in enumerate(self._blocks_of(group, texts)):
                    if segment < skipped:
                        continue
                    owner = self._owner(group, segment)
                    own = None
                    if owner == self._ranks.rank:
                        own = begin_block(self._model, block, self._settings)
                    yield (group, segment), owner, own

    def _from(self, groups: Iterable[FileGroup], place: Place) -> Iterator[FileGroup]:
        for group in groups:
            if group.number < place.group:
                self.skipped_bytes += group.num_bytes
            else:
                yield group

    def _owner(self, group: FileGroup, segment: int) -> int:
        return (group.number + segment) % self._ranks.count

    def _jobs(
        self, groups: Iterable[FileGroup], pool: EncodingPool
    ) -> Iterator[tuple[FileGroup, Job]]:
        for group in groups:
            if group.is_large:
                # every process needs its tokens: where a segment begins depends on all before it
                for job in _parts_of(group, pool):
                    yield group, job
            else:
                is_own = self._owner(group, 0) == self._ranks.rank
                yield group, list(group.files) if is_own else []

    def _blocks_of(self, group: FileGroup, texts: Iterable[EncodedText]) -> Iterator[TokenBlock]:
        if group.is_large:
            yield from segments(texts, self._model.config, self._block_tokens)
            return
        read = list(texts)
        for file, text in zip(group.files, read, strict=False):
            if text.problem is not None and file.is_named:
                raise ValueError(text.problem)
        yield block_of(read)


def _by_group(
    encoded: Iterable[tuple[FileGroup, list[EncodedText]]],
) -> Iterator[tuple[FileGroup, Iterator[EncodedText]]]:
    """Group the results of jobs, taken one by one."""
    for _, pairs in itertools.groupby(encoded, lambda pair: pair[0].number):
        first = next(pairs)
        results = (result for _, result in itertools.chain([first], pairs))
        yield first[0], itertools.chain.from_iterable(results)


def _parts_of(group: FileGroup, pool: EncodingPool) -> Iterator[Job]:
    """Yield the jobs of a large file; at least one."""
    (file,) = group.files
    parts = cut(read_file(file), pool.encoder.cutter)
    while True:
        job: list[MarkedText] = []
        try:
            job.extend(itertools.islice(parts, _PARTS_PER_JOB))
        except (ValueError, OSError) as error:
            if file.is_named:
                raise
            yield in_words(file, error)
            return
        yield job
        if not job:
            return


def _write(
    writer: MemoryWriter, group: FileGroup, segment: int, block: ReadBlock, cursor: Any
) -> None:
    """Write the documents of a block to the memory; a segment continues the open one."""
    chunk = token = 0
    for number, (count, problem) in enumerate(zip(block.counts, block.problems, strict=True)):
        file = group.files[number]
        if segment == 0:
            notes: dict[str, Any] = {"kind": kind_of(file), "bytes": file.num_bytes}
            if problem is not None:
                notes["problem"] = problem
            writer.begin(file.name, **notes)
        chunks = slice(chunk, chunk + count)
        num_tokens = int(block.lengths[chunks].sum())
        if count:
            writer.append(
                block.landmarks[chunks],
                block.keys[chunks],
                block.values[chunks],
                block.lengths[chunks],
                block.token_ids[token : token + num_tokens],
                block.lines[chunks],
            )
        chunk, token = chunk + count, token + num_tokens
        if block.is_last:
            writer.end()
    writer.checkpoint(cursor)
