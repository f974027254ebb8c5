"""Notes: short sentences about any things, and the questions that people would ask about them.

Neither the things nor the values have names of their own: a question shares ordinary words with the
note that answers it, and what it asks for, a person, a place, a day or a sum, tells which part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from gcattn.data.needle_tasks.exercise import Exercise, Needle
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.natural_question import natural_question
from gcattn.data.needle_tasks.note_frames import EVALUATION_FRAMES, TRAINING_FRAMES
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary
from gcattn.data.stories.values import VALUES, draw_person
from gcattn.data.words.corpus_words import COLOURS, MATERIALS
from gcattn.data.words.ordinary_words import ADJECTIVES, MONTHS, NOUNS
from gcattn.data.words.split import split_of_text
from gcattn.data.words.templates import fill

# of the notes of an exercise, how often the others say the same kind of thing as the first
_SAME_FRAME_SHARE = 0.5
# of things, those whose noun is any word of the text
_TEXT_NOUN_SHARE = 0.3
_PASSAGE = 60
_THINGS = (
    "the {front} {noun}",
    "the {noun} of the {other}",
    "the {front} {noun} of the {other}",
    "the {noun} {spot} the {other}",
    "the {nth} {front} {noun}",
    "the {front} {noun} in {t}",
    "the {noun} of {p}",
    "our {front} {noun}",
)
_TRIES = 100
_SPOTS = ("behind", "under", "beside", "inside", "near", "opposite", "on top of", "in front of")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ORDINALS = ("first", "second", "third", "last")
_COUNTED = ("two", "three", "four", "five", "six", "eight", "ten", "twelve", "fifteen", "twenty")
_HOURS = ("one", *_COUNTED[:5], "seven", "eight", "nine", "ten", "eleven")
_SPANS = ("minutes", "hours", "days", "weeks", "months")
_MONEY = ("euros", "dollars", "pounds", "crowns", "francs", "pence")
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
    source = _Source(rng, words, haystack)
    frames = TRAINING_FRAMES if words.split == "train" else EVALUATION_FRAMES
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


class _Source:
    """Draws the things and values of one exercise; no noun comes twice."""

    def __init__(self, rng: Random, words: NeedleVocabulary, haystack: Haystack) -> None:
        self._rng, self._words, self._haystack = rng, words, haystack
        self._used: set[str] = set()

    def thing(self) -> tuple[str, str]:
        """Draw a thing of the split, such as "the copper kettle of the brewer", and its noun."""
        tried = 0
        while True:
            noun, thing = self._thing()
            tried += 1
            # of very many notes some share a noun
            is_new = thing not in self._used if tried > _TRIES else noun not in self._used
            if is_new and split_of_text(thing) == self._words.split:
                self._used.update((noun, thing))
                return thing, f"the {noun}"

    def things(self) -> str:
        """Draw things in the plural, such as "wooden spoons"."""
        adjective = self._rng.choice((*ADJECTIVES, *COLOURS, *MATERIALS))
        return f"{adjective} {_plural(self._rng.choice(NOUNS))}"

    def person(self) -> str:
        """Draw a person."""
        return draw_person(self._rng, self._words.texts)

    def town(self) -> str:
        """Draw a town."""
        return VALUES["place"](self._rng, self._words.texts)

    def code(self) -> str:
        """Draw what stands on plates and locks."""
        kind = self._rng.choice(("code", "number", "hyphenated", "letters", "hex", "made-up"))
        return self._words.texts.draw(self._rng, kind)[0]

    def named(self) -> str:
        """Draw a name for a thing."""
        rng = self._rng
        made_up = self._words.texts.draw(rng, "made-up")[0].split()[0]
        return rng.choice((rng.choice(NOUNS), made_up)).capitalize()

    def named_in(self, *texts: str) -> dict[str, str]:
        """Draw the things, people and towns that some texts have places for."""
        draws = {"n": self.things, "p": self.person, "t": self.town}
        return {
            place: draw()
            for place, draw in draws.items()
            if any(f"{{{place}}}" in x for x in texts)
        }

    def _thing(self) -> tuple[str, str]:
        rng = self._rng
        noun = self._text_noun() if rng.random() < _TEXT_NOUN_SHARE else rng.choice(NOUNS)
        front = rng.choice((*ADJECTIVES, *COLOURS, *MATERIALS, *NOUNS))
        other = rng.choice(NOUNS)
        form = rng.choice(_THINGS)
        parts = {"front": front, "noun": noun, "other": other}
        parts |= {"spot": rng.choice(_SPOTS), "nth": rng.choice(_ORDINALS[:3])}
        return noun, fill(form, **parts, **self.named_in(form))

    def _text_noun(self) -> str:
        place = self._rng.randrange(self._haystack.num_tokens)
        text = self._words.decode(self._haystack.read(place, _PASSAGE).tolist())
        return self._rng.choice(re.findall(r"\b[a-z]{5,12}\b", text) or NOUNS)


def _spot(rng: Random, source: _Source) -> str:
    return f"{rng.choice(_SPOTS)} {source.thing()[0]}"


def _time(rng: Random, source: _Source) -> str:
    hour, minute = rng.randrange(24), rng.choice((0, 5, 10, 15, 20, 25, 30, 40, 45, 50, 55))
    said = rng.choice(("half past {h}", "a quarter to {h}", "{h} o'clock", "ten to {h}"))
    written = (f"{hour}:{minute:02d}", f"{hour % 12 + 1} {rng.choice(('am', 'pm'))}")
    return rng.choice((*written, fill(said, h=rng.choice(_HOURS)), rng.choice(("noon", "dawn"))))


def _day(rng: Random, source: _Source) -> str:
    day, month, weekday = rng.randint(1, 28), rng.choice(MONTHS), rng.choice(_DAYS)
    forms = (
        f"{day} {month}",
        f"{month} {day}",
        f"the {rng.choice(_ORDINALS)} {weekday} of {month}",
        weekday,
        f"{weekday}, {day} {month}",
    )
    return rng.choice(forms)


def _often(rng: Random, source: _Source) -> str:
    every = f"every {rng.choice(_COUNTED)} {rng.choice(_SPANS)}"
    forms = (
        every,
        f"every {rng.randint(2, 90)} {rng.choice(_SPANS)}",
        f"every {rng.choice(_DAYS)}",
        f"{rng.choice(('once', 'twice', 'three times'))} a {rng.choice(_SPANS)[:-1]}",
        f"on the {rng.choice(_ORDINALS)} {rng.choice(_DAYS)} of the month",
    )
    return rng.choice(forms)


def _long(rng: Random, source: _Source) -> str:
    number = rng.choice((str(rng.randint(2, 90)), rng.choice(_COUNTED)))
    return f"{number} {rng.choice(_SPANS)}"


def _count(rng: Random, source: _Source) -> str:
    return rng.choice((str(rng.randint(2, 99)), str(rng.randint(2, 9999)), rng.choice(_COUNTED)))


def _money(rng: Random, source: _Source) -> str:
    return f"{rng.randint(2, 9999)} {rng.choice(_MONEY)}"


_VALUES: dict[str, Callable[[Random, _Source], str]] = {
    "person": lambda rng, source: source.person(),
    "place": lambda rng, source: source.town(),
    "spot": _spot,
    "time": _time,
    "day": _day,
    "year": lambda rng, source: str(rng.randint(1500, 2030)),
    "often": _often,
    "long": _long,
    "count": _count,
    "money": _money,
    "named": lambda rng, source: source.named(),
    "colour": lambda rng, source: rng.choice(COLOURS),
    "material": lambda rng, source: rng.choice(MATERIALS),
    "thing": lambda rng, source: source.thing()[0],
    "things": lambda rng, source: source.things(),
    "code": lambda rng, source: source.code(),
}


def _write(
    rng: Random, source: _Source, frame: Sequence[str], lead: str, short_share: float
) -> _Note:
    kind, statements, questions = frame
    statement, question = rng.choice(statements.split("|")), rng.choice(questions.split("|"))
    thing, short = source.thing()
    about = source.named_in(statement, question) | {"a": thing, "A": _capital(thing)}
    asked = about | {"a": short if rng.random() < short_share else thing}
    value = _VALUES[kind](rng, source)
    said, _, rest = statement.partition("{value}")
    before = _capital(fill(said, **about))
    if not before:
        value = _capital(value)
    start = len(lead) + len(before)
    text = f"{lead}{before}{value}{fill(rest, **about)}"
    return _Note(text, start, start + len(value), _capital(fill(question, **asked)))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
