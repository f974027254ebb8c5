"""The demo's library: a folder of small files is read into a memory once, and asked."""

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from rich.console import Console
from transformers import PreTrainedTokenizerFast

from gcattn.cli.progress import library_progress
from gcattn.data.needle_tasks import Haystack
from gcattn.data.stories.story import Person, ask, draw_people, tell
from gcattn.data.words.texts import Texts
from gcattn.library.asking import open_library
from gcattn.library.files import find_files
from gcattn.library.making import build_library

FILES, FILE_TOKENS, ASKED = 200, 240, 5


@dataclass(frozen=True)
class Fact:
    """A line of one of the files, and a question about it in other words."""

    file: str
    line: int
    question: str
    answer: str


def show_library(console: Console, model: str, haystack: Haystack) -> None:
    """Write files, build a memory of them, ask it, and say what was right."""
    tokenizer = haystack.shards.tokenizer
    with TemporaryDirectory() as place:
        folder, memory = Path(place) / "files", Path(place) / "memory"
        facts = write_files(folder, haystack, tokenizer)
        console.print(f"[bold]A library[/] of {FILES} files, {ASKED} of which tell of somebody")
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
        shown = []
        for fact in facts:
            answer = library.ask(fact.question, max_new_tokens=16)
            source = answer.sources[0]
            right += answer.text.rstrip(".") == fact.answer
            name = Path(source.name).name
            found += (name, source.line) == (fact.file, fact.line)
            shown += [f"asked: {fact.question}", f"answered: {answer.text}"]
            shown += [f"from {name}:{source.line}: {source.line_text}"]
        seconds = (time.monotonic() - begin) / len(facts)
        console.print(
            f"   {right} of {len(facts)} answers right, {found} with their file and line; "
            f"{seconds:.1f} s each"
        )
        for line in shown:
            console.print(f"   {line}", markup=False)


def write_files(folder: Path, haystack: Haystack, tokenizer: PreTrainedTokenizerFast) -> list[Fact]:
    """Write the haystack's text into small files, with a line about somebody in some of them."""
    folder.mkdir()
    draw = Random(0)
    people = draw_people(draw, Texts("validation"), ASKED, set())
    facts: list[Fact] = []
    for number in range(FILES):
        ids = haystack.read(number * FILE_TOKENS, FILE_TOKENS)
        text = str(tokenizer.decode(ids, skip_special_tokens=True))
        lines = [line for line in text.split("\n") if line.strip()]
        name = f"{number:03}.txt"
        if number % (FILES // ASKED) == FILES // ASKED // 2:
            whole = people[len(facts)]
            relation = draw.choice(list(whole.facts))
            person = Person(whole.name, {relation: whole.facts[relation]})
            line = draw.randint(0, len(lines))
            lines.insert(line, tell(draw, person, "validation"))
            asked = ask(draw, person, "validation")
            facts.append(Fact(name, line + 1, asked.question, asked.answer))
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return facts
