"""A model of a few thousand weights that knows the shipped tokenizer, and folders to read."""

import random
from pathlib import Path

import pytest
import torch

from gcattn.data import load_tokenizer
from gcattn.library.state import BuildSettings
from gcattn.testing import random_config, random_model

WORDS = "the house of a captain stood by the river and nobody knew why it was dark in winter"


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer):
    config = random_config(
        5,
        vocab_size=len(tokenizer),
        chunk_size=9,
        window_size=6,
        num_lower_layers=2,
        embedding_convolution_size=2,
        key_convolution_size=2,
    )
    return random_model(config).float()


@pytest.fixture(scope="session")
def settings():
    return BuildSettings(block_tokens=64, part_bytes=1, dtype="float32")


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
    from gcattn.memory.saved import open_memory
    from gcattn.memory.saved.part import Part

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
