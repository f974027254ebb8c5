"""The demo's library: a folder of small files is read into a memory once, and asked."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from rich.console import Console
from transformers import PreTrainedTokenizerFast

from gcattn.cli.progress import library_progress
from gcattn.data.needle_tasks import Haystack
from gcattn.data.words.split import split_of
from gcattn.library.asking import open_library
from gcattn.library.files import find_files
from gcattn.library.making import build_library

FILES, FILE_TOKENS, ASKED = 200, 240, 5
# tokens of a key and of a value, as the released models were trained on
KEY, VALUE = 2, 5


@dataclass(frozen=True)
class Secret:
    """A sentence in one of the files."""

    file: str
    line: int
    key: str
    value: str


def show_library(console: Console, model: str, haystack: Haystack) -> None:
    """Write files, build a memory of them, ask it, and say what was right."""
    tokenizer = haystack.shards.tokenizer
    with TemporaryDirectory() as place:
        folder, memory = Path(place) / "files", Path(place) / "memory"
        secrets = write_files(folder, haystack, tokenizer)
        console.print(f"[bold]A library[/] of {FILES} files, {ASKED} of which hold a secret")
        begin = time.monotonic()
        total = sum(file.num_bytes for file in find_files([folder]))
        with library_progress(total) as on_progress:
            build_library(folder, memory, model=model, on_progress=on_progress)
        read = time.monotonic() - begin
        library = open_library(memory)
        held = library.memory
        console.print(f"   {held.num_tokens:,} tokens read once, in {read:.1f} s")
        right = found = 0
        begin = time.monotonic()
        for secret in secrets:
            question = f"What is the secret of {secret.key}?"
            answer = library.ask(question, max_new_tokens=2 * VALUE)
            source = answer.sources[0]
            right += answer.text.rstrip(".") == secret.value
            found += (Path(source.name).name, source.line) == (secret.file, secret.line)
        seconds = (time.monotonic() - begin) / len(secrets)
        console.print(
            f"   {right} of {len(secrets)} answers right, {found} with their file and line; "
            f"{seconds:.1f} s each"
        )
        console.print(f"   asked: {question}", markup=False)
        name = Path(source.name).name
        console.print(f"   answered: {answer.text}", markup=False)
        console.print(f"   from {name}:{source.line}: {source.line_text}", markup=False)


def write_files(
    folder: Path, haystack: Haystack, tokenizer: PreTrainedTokenizerFast
) -> list[Secret]:
    """Write the haystack's text into small files, with a secret in some of them."""
    folder.mkdir()
    draw = Random(0)
    words = sorted(
        token
        for text, token in tokenizer.get_vocab().items()
        if re.fullmatch("Ġ[a-z]{3,}", text)  # a word with the blank in front of it
    )
    secrets = []
    for number in range(FILES):
        ids = haystack.read(number * FILE_TOKENS, FILE_TOKENS)
        text = str(tokenizer.decode(ids, skip_special_tokens=True))
        lines = [line for line in text.split("\n") if line.strip()]
        name = f"{number:03}.txt"
        if number % (FILES // ASKED) == FILES // ASKED // 2:
            key, value = (_phrase(draw, words, tokenizer, size) for size in (KEY, VALUE))
            line = draw.randint(0, len(lines))
            lines.insert(line, f"The secret of {key} is {value}.")
            secrets.append(Secret(name, line + 1, key, value))
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return secrets


def _phrase(draw: Random, words: list[int], tokenizer: PreTrainedTokenizerFast, size: int) -> str:
    """Draw words that training never saw together."""
    while True:
        ids = tuple(draw.sample(words, size))
        if split_of(ids) == "validation":
            return str(tokenizer.decode(list(ids))).strip()
