"""Notes: short texts about any things, and the questions that people would ask about them.

Neither the things nor the values have names of their own: a question shares ordinary words with the
note that answers it, and what it asks for, a person, a place, a day or a sum, tells which part.
Often a note holds a second value of the kind, and only the words around it tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from gcattn.data.needle_tasks.exercise import Exercise, Needle
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.natural_question import natural_question
from gcattn.data.needle_tasks.note_frames import Frame, frames_of, kind_of, places_in
from gcattn.data.needle_tasks.note_values import Source
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary
from gcattn.data.words.templates import fill

# of the notes of an exercise, how often the others say the same kind of thing as the first
_SAME_FRAME_SHARE = 0.5
# of questions of training where no other note says the same kind of thing, those that name the
# thing by its noun alone
_SHORT_SHARE = 0.3
# what people write in front of a note
_LEADS = ("", "", "", "", "# ", "- ", "* ", "// ", "NB: ", "Note: ", "PS: ", "> ", "Remember: ")


@dataclass(frozen=True)
class _Note:
    """A note as text; the answer is [start, stop) of it."""

    text: str
    start: int
    stop: int
    question: str


def notes(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """`count` notes; one is asked about, in training each."""
    source = Source(rng, words, haystack)
    frames = frames_of(words.split)
    first = rng.choice(frames)
    is_same = rng.random() < _SAME_FRAME_SHARE
    is_train = words.split == "train"
    groups, questions = [], []
    for number in range(count):
        frame = first if is_same or number == 0 else rng.choice(frames)
        short_share = _SHORT_SHARE if is_train and not is_same else 0.0
        note = _write(rng, source, frame, rng.choice(_LEADS) if is_train else "", short_share)
        ids, start, stop = words.encode_part(f"\n{note.text}\n", 1 + note.start, 1 + note.stop)
        groups.append((Needle(ids, start, stop),))
        if number == 0 or is_train:
            answer = note.text[note.start : note.stop]
            questions.append(natural_question(words, note.question, answer, number))
    return Exercise(tuple(groups), tuple(questions))


def _write(rng: Random, source: Source, frame: Frame, lead: str, short_share: float) -> _Note:
    statement, question = rng.choice(frame.statements), rng.choice(frame.questions)
    thing, short = source.thing()
    about = {"a": thing, "A": _capital(thing)}
    for place in places_in(statement):
        if place != frame.place and place not in about:
            about[place] = source.draw(kind_of(place), fill(statement, **about))
    asked = about | {"a": short if rng.random() < short_share else thing}
    said, _, rest = fill(statement, **about).partition(f"{{{frame.place}}}")
    value = source.draw(kind_of(frame.place), f"{said}{rest} {fill(question, **about)}")
    # a heading, a bullet or a comment has its own mark in front
    before = (lead if statement[0].isalpha() or statement[0] == "{" else "") + _capital(said)
    if not said:
        value = _capital(value)
    text = f"{before}{value}{rest}"
    return _Note(text, len(before), len(before) + len(value), _capital(fill(question, **asked)))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
