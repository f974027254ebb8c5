"""The demo's library: Python's standard library is read into a memory once, and asked.

Comments of two kinds are hidden in its modules. Facts about people are those of the needle task
`people`, in words that training never used. Notes are what programmers leave; training knew nothing
like them.
"""

import re
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from rich.console import Console

from gcattn.cli.progress import library_progress
from gcattn.data.stories.story import Person, ask, draw_people, tell
from gcattn.data.words.texts import Texts
from gcattn.library.asking import Answer, open_library
from gcattn.library.files import find_files
from gcattn.library.making import build_library

# some forty modules, about 80,000 tokens
LEAST_BYTES, MOST_BYTES = 1000, 8000
PEOPLE = 10


@dataclass(frozen=True)
class Note:
    """A comment, a question that it answers, and the answer."""

    comment: str
    question: str
    answer: str


NOTES = (
    Note(
        "The staging server listens on port 8471.",
        "On which port does the staging server listen?",
        "8471",
    ),
    Note(
        "Priya Raman wrote the first version of this parser.",
        "Who wrote the first version of the parser?",
        "Priya Raman",
    ),
    Note(
        "The licence of the weather data ends on 30 June.",
        "When does the licence of the weather data end?",
        "30 June",
    ),
    Note(
        "The backup of the billing database is kept in Rotterdam.",
        "Where is the backup of the billing database kept?",
        "Rotterdam",
    ),
    Note(
        "The password of the test account is copper-lantern.",
        "What is the password of the test account?",
        "copper-lantern",
    ),
    Note(
        "Tomas Lindqvist must approve every change of the tax table.",
        "Who must approve changes of the tax table?",
        "Tomas Lindqvist",
    ),
    Note(
        "The nightly job runs at a quarter past four.",
        "When does the nightly job run?",
        "a quarter past four",
    ),
    Note(
        "The code name of the next release is Kingfisher.",
        "What is the code name of the next release?",
        "Kingfisher",
    ),
    Note(
        "Call Ines Duarte if the alarm of the cold room rings.",
        "Whom should one call if the alarm of the cold room rings?",
        "Ines Duarte",
    ),
    Note(
        "The invoice service retries 12 times before it gives up.",
        "How many times does the invoice service retry?",
        "12",
    ),
)


def show_library(console: Console, model: str) -> None:
    """Write files, build a memory of them, ask it, and say what was right."""
    kinds = {"facts about people": draw_facts(), "notes of programmers": NOTES}
    notes = [note for kind in kinds.values() for note in kind]
    with TemporaryDirectory() as place:
        folder, memory = Path(place) / "files", Path(place) / "memory"
        places = write_files(folder, Path(sysconfig.get_path("stdlib")), notes)
        console.print(
            f"[bold]A library[/] of {len(list(folder.iterdir()))} modules of Python, with "
            f"{len(notes)} comments hidden in them"
        )
        begin = time.monotonic()
        total = sum(file.num_bytes for file in find_files([folder]))
        with library_progress(total) as on_progress:
            build_library(folder, memory, model=model, on_progress=on_progress)
        read = time.monotonic() - begin
        library = open_library(memory)
        console.print(f"   {library.memory.num_tokens:,} tokens read once, in {read:.1f} s")
        for name, kind in kinds.items():
            begin = time.monotonic()
            answers = [library.ask(note.question, max_new_tokens=16) for note in kind]
            seconds = (time.monotonic() - begin) / len(kind)
            right = [is_right(answer, note) for answer, note in zip(answers, kind, strict=True)]
            expected = [places[note] for note in kind]
            found = sum(map(eq, map(source_place, answers), expected))
            console.print(
                f"   {name}: {sum(right)} of {len(kind)} answers right, {found} with their file "
                f"and line first; {seconds:.1f} s each"
            )
            for note, answer, is_one in zip(kind, answers, right, strict=True):
                said = "right" if is_one else f"wrong, it is {note.answer}"
                line = f"      {note.question} {answer.text} ({source_place(answer)}; {said})"
                console.print(line, markup=False)


def draw_facts() -> tuple[Note, ...]:
    """Draw facts about people, each with a question about it in other words."""
    draw, facts = Random(0), []
    for whole in draw_people(draw, Texts("validation"), PEOPLE, set()):
        relation = draw.choice(list(whole.facts))
        person = Person(whole.name, {relation: whole.facts[relation]})
        told, asked = tell(draw, person, "validation"), ask(draw, person, "validation")
        facts.append(Note(told, asked.question, asked.answer))
    return tuple(facts)


def write_files(folder: Path, library: Path, notes: Sequence[Note]) -> dict[Note, str]:
    """Copy the library's small modules with a comment in some; return each comment's place."""
    folder.mkdir()
    sizes = {file: file.stat().st_size for file in sorted(library.glob("*.py"))}
    modules = [file for file, size in sizes.items() if LEAST_BYTES <= size <= MOST_BYTES]
    if len(modules) < len(notes):
        raise ValueError(
            f"{library} must have at least {len(notes)} modules of {LEAST_BYTES:,} to "
            f"{MOST_BYTES:,} bytes to hide comments in, got {len(modules)}."
        )
    draw, places = Random(0), {}
    chosen = draw.sample(modules, len(notes))
    for module in modules:
        lines = module.read_text(encoding="utf-8").splitlines()
        if module in chosen:
            note, line = notes[chosen.index(module)], draw.randrange(len(lines))
            indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
            lines.insert(line, f"{indent}# {note.comment}")
            places[note] = f"{module.name}:{line + 1}"
        (folder / module.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return places


def is_right(answer: Answer, note: Note) -> bool:
    """Say whether the line that was written contains the words of the answer."""
    return re.search(rf"\b{re.escape(note.answer)}\b", answer.text) is not None


def source_place(answer: Answer) -> str:
    """Return the file and line of the first source."""
    source = answer.sources[0]
    return f"{Path(source.name).name}:{source.line}"
