"""From files to token ids, ahead of the model: in worker processes, or in this one.

Shapes: n tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from gcattn.data.text_pieces import TextCutter
from gcattn.library.files import SourceFile
from gcattn.library.marked_text import MarkedText, cut
from gcattn.library.readers import read_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Key = TypeVar("Key")
# jobs queued for each worker, so that none is idle
_AHEAD = 2


@dataclass(frozen=True)
class EncodedText:
    """Token ids of a stretch of text or of a whole file.

    Attributes:
        ids: Token ids, int32 [n].
        places: Line or page that each token begins on, int32 [n].
        problem: Why a file could not be read, in one sentence.
    """

    ids: np.ndarray
    places: np.ndarray
    problem: str | None = None


# whole files, or parts of one, or why the rest is missing
Job = list[SourceFile] | list[MarkedText] | str


class TextEncoder:
    """Encodes texts with a tokenizer; special tokens spelled out in them are plain text.

    Args:
        tokenizer: The tokenizer as its library writes it, a JSON text.
    """

    def __init__(self, tokenizer: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.cutter = TextCutter(self._tokenizer)

    def run(self, job: Job) -> list[EncodedText]:
        """Encode each file or part of a job."""
        if isinstance(job, str):
            return [_unread(job)]
        files = [item for item in job if isinstance(item, SourceFile)]
        if files:
            return [self._file(file) for file in files]
        return self._parts([item for item in job if isinstance(item, MarkedText)])

    def _file(self, file: SourceFile) -> EncodedText:
        try:
            parts = self._parts(list(cut(read_file(file), self.cutter)))
        except (ValueError, OSError) as error:
            return _unread(in_words(file, error))
        return joined(parts)

    def _parts(self, parts: list[MarkedText]) -> list[EncodedText]:
        texts = [part.text for part in parts]
        encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [
            EncodedText(
                np.array(encoding.ids, dtype=np.int32),
                part.place_of(np.array([start for start, _ in encoding.offsets], dtype=np.int64)),
            )
            for part, encoding in zip(parts, encoded, strict=True)
        ]


def joined(texts: Iterable[EncodedText]) -> EncodedText:
    """Join encoded texts that follow each other."""
    nothing = EncodedText(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32))
    parts = [nothing, *texts]
    return EncodedText(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.places for part in parts]),
    )


class EncodingPool:
    """Encodes jobs in order, some of them ahead of time; a context manager.

    Processes are spawned, not forked: a fork of a process in which torch has threads may hang.
    A script that asks for workers therefore needs `if __name__ == "__main__":`.

    Args:
        tokenizer: The tokenizer as its library writes it, a JSON text.
        num_workers: Processes; 0 encodes in this process, on demand.
    """

    def __init__(self, tokenizer: str, num_workers: int) -> None:
        self.encoder = _encoder(tokenizer)
        self._num_workers = num_workers
        self._pool: ProcessPoolExecutor | None = None
        if num_workers:
            self._pool = ProcessPoolExecutor(
                num_workers, get_context("spawn"), initializer=_begin, initargs=(tokenizer,)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def encode(self, jobs: Iterable[tuple[Key, Job]]) -> Iterator[tuple[Key, list[EncodedText]]]:
        """Yield each job's key and result, in the order of the jobs."""
        if self._pool is None:
            for key, job in jobs:
                yield key, self.encoder.run(job)
            return
        waiting: deque[tuple[Key, Future[list[EncodedText]]]] = deque()
        for key, job in jobs:
            waiting.append((key, self._pool.submit(_run, job)))
            if len(waiting) > _AHEAD * self._num_workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for key, future in waiting:
            yield key, future.result()


@lru_cache(maxsize=1)
def _encoder(tokenizer: str) -> TextEncoder:
    return TextEncoder(tokenizer)


_ENCODER: TextEncoder | None = None


def _begin(tokenizer: str) -> None:
    """Give a worker its tokenizer."""
    global _ENCODER
    _ENCODER = TextEncoder(tokenizer)


def _run(job: Job) -> list[EncodedText]:
    assert _ENCODER is not None  # every worker begins with `_begin`
    return _ENCODER.run(job)


def _unread(problem: str) -> EncodedText:
    nothing = np.zeros(0, dtype=np.int32)
    return EncodedText(nothing, nothing, problem)


def in_words(file: SourceFile, error: Exception) -> str:
    """Say in one sentence why a file could not be read."""
    if isinstance(error, OSError) and error.strerror:
        return f"{file.name}: {error.strerror}."
    return str(error)
