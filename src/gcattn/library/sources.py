"""The sources of an answer: from retrieved chunks to files, lines and weights.

Shapes: F landmarks of a call, K retrieved chunks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gcattn.memory.saved import SavedMemory


@dataclass(frozen=True)
class Source:
    """A chunk that an answer comes from.

    Attributes:
        chunk: Its number in the memory.
        name: Its file.
        kind: "text", "html" or "pdf".
        line: Line of the file, or page of a PDF. In plain text it is the line that shares the most
            words with question and answer; otherwise the one on which the chunk begins.
        weight: Its retrieval weight, averaged over all retrievals that served the answer.
        text: The chunk.
        line_text: That line.
        holds_answer: Whether the chunk contains the answer, word for word.
    """

    chunk: int
    name: str
    kind: str
    line: int
    weight: float
    text: str
    line_text: str
    holds_answer: bool

    @property
    def place(self) -> str:
        """File and line, as editors and compilers write them."""
        return (
            f"{self.name}, page {self.line}" if self.kind == "pdf" else f"{self.name}:{self.line}"
        )


def source_of(
    memory: SavedMemory,
    tokenizer: PreTrainedTokenizerFast,
    chunk: int,
    weight: float,
    question: str,
    answer: str,
) -> Source:
    """Return where a chunk comes from.

    Args:
        memory: The memory that holds it.
        tokenizer: Decodes its token ids.
        chunk: Its number.
        weight: Its retrieval weight.
        question: What was asked.
        answer: What was answered.
    """
    passage = memory.passage(chunk)
    text = str(tokenizer.decode(passage.token_ids))
    kind = passage.document.notes.get("kind", "text")
    lines = text.split("\n")
    at = _likeliest(lines, f"{question} {answer}")
    # in other kinds a line of the text is not a line of the file
    line = passage.line + at if passage.line and kind == "text" else passage.line
    wanted = " ".join(answer.split()).strip(".")
    holds = bool(wanted) and wanted in " ".join(text.split())
    return Source(chunk, passage.document.name, kind, line, weight, text, lines[at], holds)


def chunk_weights(retrieval: Sequence[Any]) -> dict[int, float]:
    """Return the mean weight of every chunk that served an answer, largest first.

    Args:
        retrieval: What `generate` collected: for each call the selection of each group, [1, F, K].
            In the first call, which reads the question, the last landmark serves the answer.
    """
    total: dict[int, float] = {}
    count = 0
    for call, groups in enumerate(retrieval):
        for selection in groups:
            first = max(selection.indices.shape[1] - 1, 0) if call == 0 else 0
            for indices, weights in zip(
                selection.indices[0, first:].tolist(),
                selection.weights[0, first:].tolist(),
                strict=True,
            ):
                count += 1
                for chunk, weight in zip(indices, weights, strict=True):
                    if chunk >= 0:
                        total[chunk] = total.get(chunk, 0.0) + weight
    ordered = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    return {chunk: weight / count for chunk, weight in ordered}


def _likeliest(lines: Sequence[str], words: str) -> int:
    """Return the line that shares the most words with the others; the first if several do."""
    wanted = set(re.findall(r"\w+", words.lower()))
    shared = [len(wanted & set(re.findall(r"\w+", line.lower()))) for line in lines]
    return shared.index(max(shared))
