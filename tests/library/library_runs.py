"""Small folders of text, runs that read them, and what they make."""

import random
from pathlib import Path

import torch

from gcattn.library.building import read_into
from gcattn.library.state import LibraryState
from gcattn.memory.saved import open_memory
from gcattn.memory.saved.part import Part

WORDS = "the house of a captain stood by the river and nobody knew why it was dark in winter"


class Killed(BaseException):
    """What stops a run at some place, as a kill does: nothing catches it."""


def read(folder, model, tokenizer, settings, sources, *, new=True, **kwargs):
    begin = LibraryState("model", "fingerprint", settings) if new else None
    state = tokenizer.backend_tokenizer.to_str()
    sources = tuple(map(str, sources))
    read_into(folder, sources, model, state, begin=begin, **kwargs)


def assert_same(first, second):
    (tensors, documents), (others, other_documents) = tensors_of(first), tensors_of(second)
    assert documents == other_documents
    for name, x in tensors.items():
        assert torch.equal(x, others[name]), name


def killed_after(blocks):
    def on_progress(progress):
        nonlocal blocks
        blocks -= progress.tokens > 0
        if not blocks:
            raise Killed

    return on_progress


def write_files(folder: Path, count: int, seed: int = 0, *, large: int | None = 2) -> Path:
    """Write `count` small files, one of which holds more than a block of 64 tokens, if wanted."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        lines = 40 if number == large else draw.randint(0, 4)
        text = "".join(
            " ".join(draw.choices(WORDS.split(), k=draw.randint(2, 9))) + ".\n"
            for _ in range(lines)
        )
        (folder / f"{number:03}.txt").write_text(text)
    return folder


def tensors_of(folder):
    """Return everything that a memory holds, and its documents."""
    memory = open_memory(folder)
    held = {"landmarks": [], "chunks": [], "lengths": [], "lines": []}
    for entry in memory.description.parts:
        part = Part(folder, entry)
        n = part.num_chunks
        landmarks = torch.empty(n, *part._places["landmarks"]["shape"][1:])
        part.read_landmarks(landmarks)
        chunks = torch.empty(n, *part.chunk_shape)
        for number in range(n):
            part.read_chunk(number, chunks[number])
        for name, x in (
            ("landmarks", landmarks),
            ("chunks", chunks),
            ("lengths", part.lengths),
            ("lines", part.lines),
        ):
            held[name].append(x)
    joined = {name: torch.cat(parts) for name, parts in held.items()}
    joined["token_ids"] = memory.token_ids(0, memory.num_chunks)
    return joined, list(memory.documents)
