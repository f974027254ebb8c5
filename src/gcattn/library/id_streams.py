"""An endless stream of token ids, read into a memory as one document.

The ids come from an iterator, segment by segment; only a few segments and their halos are in memory
at a time. Several processes divide the segments among them, as they do files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gcattn.library.blocks import segments
from gcattn.library.encoding import EncodedText
from gcattn.library.in_order import InOrder
from gcattn.library.making import default_settings
from gcattn.library.ranks import Begun, Ranks
from gcattn.library.reading import ReadBlock, begin_block
from gcattn.library.state import BuildSettings
from gcattn.storage.home import expand_home


def read_ids(
    folder: str | Path,
    name: str,
    ids: Iterable[Any],
    model: Any,
    *,
    settings: BuildSettings | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Read a stream of ids into a memory, as one document; after a kill, the same call continues.

    Args:
        folder: Folder of the memory; created if missing.
        name: Of the document.
        ids: Pieces of the stream, each a list, array or tensor of ids; the same ones in all
            processes, and after a kill.
        model: A `DRTForCausalLM` in evaluation mode.
        settings: How the stream is divided; by default `default_settings`.
        on_progress: Called with the tokens read so far, in the process that writes.

    Raises:
        FileExistsError: The memory ends with a document of this name.
        ValueError: The memory ends with another document that is not finished, or is of another
            model.
    """
    from gcattn.memory.saved import MemoryWriter

    chosen = default_settings(model) if settings is None else settings
    place = expand_home(folder)
    ranks = Ranks()
    with ExitStack() as opened:
        writer: Any = None

        def begin() -> int:
            nonlocal writer
            writer = opened.enter_context(
                MemoryWriter(
                    place,
                    model,
                    keys_values=chosen.keys_values,
                    part_bytes=chosen.part_bytes,
                )
            )
            return _segments_read(writer, place, name)

        def write(read: ReadBlock, number: int) -> None:
            if number == 0:
                writer.begin(name)
            writer.append(
                read.landmarks, read.keys, read.values, read.lengths, read.token_ids, read.lines
            )
            if read.is_last:
                writer.end()
            writer.checkpoint({"stream": name, "segment": number + 1})

        num_read = ranks.agree(begin)
        writing = opened.enter_context(InOrder())

        def begun() -> Iterator[Begun[tuple[int, int]]]:
            tokens = 0
            texts = (_encoded(piece) for piece in ids)
            for number, block in enumerate(segments(texts, model.config, chosen.block_tokens)):
                tokens += len(block.ids) - block.halo
                if number < num_read:
                    continue
                owner = number % ranks.count
                own = begin_block(model, block, chosen) if owner == ranks.rank else None
                yield (number, tokens), owner, own

        for (number, tokens), read in ranks.in_turn(begun()):
            if read is None:
                continue
            writing.do(partial(write, read, number))
            if on_progress is not None:
                on_progress(tokens)
    ranks.wait()


def _segments_read(writer: Any, folder: Path, name: str) -> int:
    """Return how many segments of the stream the memory already holds."""
    from gcattn.memory.saved import open_memory

    unfinished, cursor = writer.unfinished, writer.cursor
    if unfinished is None:
        documents = open_memory(folder).documents
        if len(documents) and documents[-1].name == name:
            raise FileExistsError(f"{folder} holds {name} already; give it another name.")
        return 0
    if unfinished.name != name or not isinstance(cursor, dict) or "stream" not in cursor:
        raise ValueError(
            f"Reading {unfinished.name} into {folder} is not finished; finish it first."
        )
    return int(cursor["segment"])


def _encoded(piece: Any) -> EncodedText:
    ids = np.asarray(piece, dtype=np.int32)
    if ids.ndim != 1:
        raise ValueError(f"Pieces of a stream must be rows of ids [n], got shape {ids.shape}.")
    return EncodedText(ids, np.zeros(len(ids), dtype=np.int32))
