"""What notes tell of: things, and values of many kinds that people ask for."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.note_frames import kind_of, places_in
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary
from gcattn.data.stories.values import VALUES, draw_person
from gcattn.data.words.corpus_words import COLOURS, MATERIALS
from gcattn.data.words.ordinary_words import ADJECTIVES, MONTHS, NOUNS
from gcattn.data.words.split import split_of_text
from gcattn.data.words.templates import fill

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
_LENGTHS = ("miles", "metres", "kilometres", "feet", "yards", "inches", "centimetres")
_WEIGHTS = ("kilograms", "grams", "pounds", "tons", "ounces")
_LANGUAGES = (
    *("Latin", "Greek", "French", "German", "Spanish", "Italian", "Russian", "Polish", "Dutch"),
    *("Arabic", "Hebrew", "Turkish", "Welsh", "Danish", "Swedish", "Finnish", "Portuguese"),
    *("Python", "Rust", "Fortran", "Java"),
)
_ANIMALS = (
    *("dog", "cat", "goat", "horse", "hen", "pig", "cow", "sheep", "fox", "hare", "mouse", "rat"),
    *("bear", "wolf", "swan", "goose", "crow", "badger", "pony", "monkey", "camel", "tortoise"),
)
_SETTINGS = (
    *("true", "false", "enabled", "disabled", "strict", "lazy", "verbose", "quiet", "manual"),
    *("read-only", "legacy", "experimental", "debug", "silent", "nearest", "round-robin"),
)
_ENDINGS = ("txt", "csv", "json", "yaml", "conf", "log", "pdf", "py", "md", "ini", "xlsx", "png")
_REASONS = (
    *("heavy rain", "lack of money", "high winds", "a burst pipe", "a broken axle", "a strike"),
    *("the fog", "a power cut", "a missing signature", "a misprint", "the frost", "a gas leak"),
    *("a shortage of staff", "complaints from the neighbours", "a fire next door", "the heat"),
    *("low demand", "a flat tyre", "an outbreak of measles", "a leaking roof", "poor sales"),
    *("a public holiday", "faulty wiring", "an unpaid bill", "rough seas", "a software bug"),
)


class Source:
    """Draws the things and values of one exercise; no noun comes twice."""

    def __init__(self, rng: Random, words: NeedleVocabulary, haystack: Haystack) -> None:
        self._rng, self._words, self._haystack = rng, words, haystack
        self._used: set[str] = set()

    def draw(self, kind: str, text: str) -> str:
        """Draw a value of a kind that is no part of a text."""
        while True:
            value = KINDS[kind](self._rng, self)
            if value.lower() not in text.lower():
                return value

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

    def text(self, kind: str) -> str:
        """Draw a text of the split, of a kind of `gcattn.data.words.texts`."""
        return self._words.texts.draw(self._rng, kind)[0]

    def ordinary(self, kind: str) -> str:
        """Draw a value of a kind that stories have too."""
        return VALUES[kind](self._rng, self._words.texts)

    def person(self) -> str:
        """Draw a person."""
        return draw_person(self._rng, self._words.texts)

    def _thing(self) -> tuple[str, str]:
        rng = self._rng
        noun = self._text_noun() if rng.random() < _TEXT_NOUN_SHARE else rng.choice(NOUNS)
        front = rng.choice((*ADJECTIVES, *COLOURS, *MATERIALS, *NOUNS))
        other = rng.choice(NOUNS)
        form = rng.choice(_THINGS)
        parts = {"front": front, "noun": noun, "other": other}
        parts |= {"spot": rng.choice(_SPOTS), "nth": rng.choice(_ORDINALS[:3])}
        named = [place for place in places_in(form) if place in ("p", "t")]
        parts |= {place: self.draw(kind_of(place), "") for place in named}
        return noun, fill(form, **parts)

    def _text_noun(self) -> str:
        place = self._rng.randrange(self._haystack.num_tokens)
        text = self._words.decode(self._haystack.read(place, _PASSAGE).tolist())
        return self._rng.choice(re.findall(r"\b[a-z]{5,12}\b", text) or NOUNS)


def _things(rng: Random, source: Source) -> str:
    return f"{rng.choice((*ADJECTIVES, *COLOURS, *MATERIALS))} {_plural(rng.choice(NOUNS))}"


def _plural(noun: str) -> str:
    if noun.endswith(("lf", "rf")):
        return f"{noun[:-1]}ves"
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _code(rng: Random, source: Source) -> str:
    """Draw what stands on plates and locks."""
    kinds = ("code", "number", "hyphenated", "letters", "hex", "made-up")
    return source.text(rng.choice(kinds))


def _named(rng: Random, source: Source) -> str:
    made_up = source.text("made-up").split()[0]
    return rng.choice((rng.choice(NOUNS), made_up)).capitalize()


def _spot(rng: Random, source: Source) -> str:
    return f"{rng.choice(_SPOTS)} {source.thing()[0]}"


def _time(rng: Random, source: Source) -> str:
    hour, minute = rng.randrange(24), rng.choice((0, 5, 10, 15, 20, 25, 30, 40, 45, 50, 55))
    said = rng.choice(("half past {h}", "a quarter to {h}", "{h} o'clock", "ten to {h}"))
    written = (f"{hour}:{minute:02d}", f"{hour % 12 + 1} {rng.choice(('am', 'pm'))}")
    return rng.choice((*written, fill(said, h=rng.choice(_HOURS)), rng.choice(("noon", "dawn"))))


def _day(rng: Random, source: Source) -> str:
    day, month, weekday = rng.randint(1, 28), rng.choice(MONTHS), rng.choice(_DAYS)
    forms = (
        f"{day} {month}",
        f"{month} {day}",
        f"the {rng.choice(_ORDINALS)} {weekday} of {month}",
        weekday,
        f"{weekday}, {day} {month}",
    )
    return rng.choice(forms)


def _often(rng: Random, source: Source) -> str:
    every = f"every {rng.choice(_COUNTED)} {rng.choice(_SPANS)}"
    forms = (
        every,
        f"every {rng.randint(2, 90)} {rng.choice(_SPANS)}",
        f"every {rng.choice(_DAYS)}",
        f"{rng.choice(('once', 'twice', 'three times'))} a {rng.choice(_SPANS[2:])[:-1]}",
        f"on the {rng.choice(_ORDINALS)} {rng.choice(_DAYS)} of the month",
    )
    return rng.choice(forms)


def _small_number(rng: Random) -> str:
    return rng.choice((str(rng.randint(2, 90)), rng.choice(_COUNTED)))


def _count(rng: Random, source: Source) -> str:
    return rng.choice((_small_number(rng), str(rng.randint(2, 9999))))


def _money(rng: Random, source: Source) -> str:
    return f"{rng.randint(2, 9999)} {rng.choice(_MONEY)}"


def _percent(rng: Random, source: Source) -> str:
    number = rng.choice((str(rng.randint(2, 98)), f"{rng.randint(1, 40)}.{rng.randint(1, 9)}"))
    return rng.choice((f"{number} percent", f"{number}%"))


def _version(rng: Random, source: Source) -> str:
    return ".".join(str(rng.randrange(most)) for most in (12, 30, 20)[: rng.randint(2, 3)])


def _file(rng: Random, source: Source) -> str:
    first, second = rng.choice(NOUNS), rng.choice(NOUNS)
    name = f"{first}{rng.choice('/_-')}{second}.{rng.choice(_ENDINGS)}"
    return rng.choice((name, f"{rng.choice(('docs', '/etc', 'src', '~', '/srv'))}/{name}"))


def _measured(units: tuple[str, ...]) -> Callable[[Random, Source], str]:
    return lambda rng, source: f"{_small_number(rng)} {rng.choice(units)}"


def _pick(choices: tuple[str, ...]) -> Callable[[Random, Source], str]:
    return lambda rng, source: rng.choice(choices)


KINDS: dict[str, Callable[[Random, Source], str]] = {
    "person": lambda rng, source: source.person(),
    "place": lambda rng, source: source.ordinary("place"),
    "spot": _spot,
    "time": _time,
    "day": _day,
    "year": lambda rng, source: str(rng.randint(1500, 2030)),
    "often": _often,
    "long": _measured(_SPANS),
    "count": _count,
    "money": _money,
    "percent": _percent,
    "distance": _measured(_LENGTHS),
    "weight": _measured(_WEIGHTS),
    "degrees": lambda rng, source: f"{rng.randint(2, 260)} degrees",
    "named": _named,
    "colour": _pick(COLOURS),
    "material": _pick(MATERIALS),
    "thing": lambda rng, source: source.thing()[0],
    "things": _things,
    "code": _code,
    "language": _pick(_LANGUAGES),
    "job": lambda rng, source: source.ordinary("trade"),
    "animal": _pick(_ANIMALS),
    "food": lambda rng, source: source.ordinary("dish"),
    "reason": _pick(_REASONS),
    "setting": _pick(_SETTINGS),
    "version": _version,
    "file": _file,
    "address": lambda rng, source: source.text("address"),
}
