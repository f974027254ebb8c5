"""How a library is divided: into blocks that are read, written and resumed independently.

A block is a group of small files, or a segment of a large one. Where blocks begin and end follows
from the sizes of the files alone, in bytes, so every process of a build knows all of them without
reading other processes' files, and a killed build finds the same ones again.

A document is read on its own, from its first token. A segment in the middle of one starts with a
*halo*: the chunks that its own chunks depend on, which are read but not kept.

Shapes: n tokens, halo included; S slots per chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gcattn.library.encoding import EncodedText, joined
from gcattn.library.files import SourceFile
from gcattn.library.readers import kind_of

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

# of English text; only determines how much a block holds
BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class FileGroup:
    """Files whose tokens make up one block, or one large file that makes up several.

    Attributes:
        number: Number of the group.
        files: In the order of their documents.
        is_large: One text file that is read in segments.
    """

    number: int
    files: tuple[SourceFile, ...]
    is_large: bool

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.num_bytes for file in self.files)


@dataclass(frozen=True)
class Span:
    """A document, or the part of it that a block holds.

    Attributes:
        start: First token in the block.
        stop: After the last.
        problem: Why it could not be read, or not completely.
    """

    start: int
    stop: int
    problem: str | None = None


@dataclass(frozen=True)
class TokenBlock:
    """Tokens that the model reads together, in one or more calls.

    Attributes:
        ids: Token ids, int32 [n].
        places: Line or page of each token, int32 [n].
        halo: Tokens in front that are read and not kept, a whole number of chunks.
        spans: Documents, one after the other; the first one includes the halo.
        is_last: The last block of its group.
    """

    ids: np.ndarray
    places: np.ndarray
    halo: int
    spans: tuple[Span, ...]
    is_last: bool


def group_files(files: Iterable[SourceFile], block_tokens: int) -> Iterator[FileGroup]:
    """Group files into about `block_tokens` tokens each; a larger text file gets its own."""
    block_bytes = block_tokens * BYTES_PER_TOKEN
    number, num_bytes = 0, 0
    held: list[SourceFile] = []
    for file in files:
        is_large = file.num_bytes > block_bytes and kind_of(file) == "text"
        if held and (is_large or num_bytes + file.num_bytes > block_bytes):
            yield FileGroup(number, tuple(held), is_large=False)
            number, held, num_bytes = number + 1, [], 0
        if is_large:
            yield FileGroup(number, (file,), is_large=True)
            number += 1
        else:
            held.append(file)
            num_bytes += file.num_bytes
    if held:
        yield FileGroup(number, tuple(held), is_large=False)


def block_of(texts: Iterable[EncodedText]) -> TokenBlock:
    """Concatenate whole documents."""
    texts = list(texts)
    stops = np.cumsum([len(text.ids) for text in texts]).tolist()
    starts = [0, *stops[:-1]]
    whole = joined(texts)
    problems = [text.problem for text in texts]
    spans = tuple(map(Span, starts, stops, problems))
    return TokenBlock(whole.ids, whole.places, 0, spans, is_last=True)


def segments(
    texts: Iterable[EncodedText], config: DRTConfig, block_tokens: int
) -> Iterator[TokenBlock]:
    """Cut one document into segments of about `block_tokens` tokens, without holding all of it.

    Args:
        texts: The document in parts; the last may say why it ends early.
        config: Configuration of the model; a segment consists of whole chunks.
        block_tokens: Tokens of a segment, without its halo.
    """
    per_chunk = config.chunk_size - 1
    size = max(block_tokens // per_chunk, 1) * per_chunk
    halo_size = halo_chunks(config) * per_chunk
    held, halo, problem = joined(()), 0, None
    for text in texts:
        held, problem = joined((held, text)), text.problem
        # a segment is yielded once something follows it: the last one is marked as the last
        while len(held.ids) > halo + size:
            end = halo + size
            ids, places = held.ids[:end], held.places[:end]
            yield TokenBlock(ids, places, halo, (Span(0, end),), is_last=False)
            start = max(end - halo_size, 0)
            held = EncodedText(held.ids[start:], held.places[start:])
            halo = end - start
    span = Span(0, len(held.ids), problem)
    yield TokenBlock(held.ids, held.places, halo, (span,), is_last=True)


def halo_chunks(config: DRTConfig) -> int:
    """Return the number of earlier chunks that a chunk's landmark, keys and values depend on."""
    reach = config.num_lower_layers * (config.window_size - 1)
    reach += config.embedding_convolution_size - 1
    # what a key or a landmark takes from the chunk before depends on that chunk's halo
    overlaps = config.key_convolution_size > 1 or config.landmark_overlap > 0
    return -(-reach // config.chunk_size) + overlaps
