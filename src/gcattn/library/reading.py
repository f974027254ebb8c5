"""The model reads a block: token ids in, landmarks, keys and values of its chunks out.

Shapes: n tokens, F chunks, S slots per chunk, G key/value heads, D head dim, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gcattn.library.blocks import TokenBlock
from gcattn.library.state import BuildSettings

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


@dataclass(frozen=True)
class ReadBlock:
    """The chunks of a block, without its halo, on the CPU.

    Attributes:
        landmarks: [F, E].
        keys: [F, S, G, D]; empty if they are not kept.
        values: Same shape as `keys`.
        lengths: Tokens of each chunk, [F].
        token_ids: Of all chunks, one after the other.
        lines: Line or page that each chunk begins on, int32 [F].
        counts: Chunks of each of the block's documents.
        problems: For each document, why it could not be read; None: it could.
        is_last: The last block of its group of files.
    """

    landmarks: Tensor
    keys: Tensor
    values: Tensor
    lengths: Tensor
    token_ids: Tensor
    lines: Tensor
    counts: list[int]
    problems: list[str | None]
    is_last: bool


def begin_block(model: Any, block: TokenBlock, settings: BuildSettings) -> Callable[[], ReadBlock]:
    """Begin to read a block, in one call; the model must be one that retrieves.

    The same block gives the same bits in every process with the same device and threads, since the
    call depends on nothing else.

    Args:
        model: A `DRTForCausalLM` in evaluation mode.
        block: With its halo.
        settings: What is kept, and in which dtype.

    Returns:
        What waits for the device and returns the chunks, so that the caller may do something else
        while a GPU reads.
    """
    config: DRTConfig = model.config
    dtype: torch.dtype = getattr(torch, settings.dtype)
    counts, starts = _chunks(block, config.chunk_size - 1)
    problems = [span.problem for span in block.spans]
    if not len(block.ids):
        pool = (0, config.chunk_size, config.num_key_value_heads, config.head_dim)
        nothing, none = torch.zeros(pool, dtype=dtype), torch.zeros(0, dtype=torch.int32)
        landmarks = torch.zeros(0, config.hidden_size, dtype=dtype)
        empty = ReadBlock(landmarks, nothing, nothing, none, none, none, counts, problems, True)
        return lambda: empty
    ids = torch.from_numpy(block.ids).long().unsqueeze(0)  # [1, n]
    breaks = torch.zeros_like(ids, dtype=torch.bool)
    # the last document's open chunk closes; a segment that continues ends with a whole chunk
    breaks[:, -1] = True
    documents = None
    if len(block.spans) > 1:
        sizes = torch.tensor([span.stop - span.start for span in block.spans])
        documents = torch.arange(len(sizes)).repeat_interleave(sizes).unsqueeze(0)
    full = len(block.ids) % (config.chunk_size - 1) == 0 and documents is None
    chunks = model.base_model.encode_chunks(
        ids.to(model.device),
        # a text of whole chunks needs no break, so its layout needs no table
        chunk_breaks=None if full else breaks,
        document_ids=documents,
    )
    halo = block.halo // (config.chunk_size - 1)
    # what is not kept need not leave the device
    kept = slice(halo, None if settings.keys_values else halo)
    keys, values = (x[0, kept] for x in (chunks.keys, chunks.values))
    landmarks, lengths = chunks.landmarks[0, halo:], chunks.lengths[0, halo:]
    return lambda: ReadBlock(
        landmarks.to("cpu", dtype),
        keys.to("cpu", dtype),
        values.to("cpu", dtype),
        lengths.cpu(),
        torch.from_numpy(block.ids[block.halo :]),
        torch.from_numpy(block.places[starts]),
        counts,
        problems,
        block.is_last,
    )


def _chunks(block: TokenBlock, per_chunk: int) -> tuple[list[int], np.ndarray]:
    """Return the chunks of each document and the first token of each chunk, without halos."""
    counts, starts = [], [np.zeros(0, dtype=np.int64)]
    for number, span in enumerate(block.spans):
        first = span.start + (0 if number else block.halo)
        own = np.arange(first, span.stop, per_chunk)
        counts.append(len(own))
        starts.append(own)
    return counts, np.concatenate(starts)
