"""Wordings made up for one exercise, from words of the text around it.

A model that is trained on a list of wordings learns the list: it answers those, and takes a
question in other words for prose. Here every statement is new. Its question shares the key with it
and some words, as the questions of people do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary
from gcattn.data.needle_tasks.wordings import Assignment, Wording

# placeholders have braces, and digits could pass for a value
_WORD = re.compile(r"(?<!\S)[^\s{}\d]+(?!\S)")
# tokens that are read at once, the words they should have, and places tried for them
_PASSAGE = 300
_FEWEST_WORDS = 100
_TRIES = 20
_ASKING = (
    *("What", "Which", "Who", "Whom", "Where", "When", "Why", "How", "How much", "How many"),
    *("To what", "In which", "With whom", "At what", "By whom", "From where", "Under what"),
    *("Say", "Name", "Give", "State", "Find", "Tell", "Q:", "#", "//"),
)
_CUES = ("It is", "It was", "That is", "They are", "Answer:", "A:", "This was", "Namely", "->")
# between key and value where few words stand there, as in tables, programs and logs
_MARKS = (":", " =", " :=", " ->", " |", ";", ",", " /", " -", "=", " is", ".")
_AROUND = (('"', '"'), ("'", "'"), ("(", ")"), ("[", "]"), ("<", ">"), ("*", "*"))
_ENDS = (".", ".", ".", "", ";", "!", ")", ",")
_TERSE_SHARE = 0.3
_PLAIN_SHARE = 0.75
_VALUE_FIRST_SHARE = 0.3
# of values with words after them, those whose end a mark shows
_BOUNDED_SHARE = 0.8


class FreeWordings:
    """Draws wordings from the words of one passage; see `Wordings` for what each of them holds.

    Args:
        words: Turns the text into words.
        haystack: The text.
    """

    def __init__(self, words: NeedleVocabulary, haystack: Haystack) -> None:
        self._words = words
        self._haystack = haystack
        self._passage: list[str] = []

    def draw(self, rng: Random) -> Wording:
        """Draw a way to state and ask."""
        is_terse = rng.random() < _TERSE_SHARE
        lead = self._some(rng, 0, 2 if is_terse else 6)
        link = self._some(rng, 0, 1) if is_terse else self._some(rng, 1, 6)
        tail = self._some(rng, 0, 2 if is_terse else 5)
        places = ["{key}", "{value}"]
        if rng.random() < _VALUE_FIRST_SHARE:
            places.reverse()
        first, second = (_enclosed(rng, place) for place in places)
        if is_terse or rng.random() < 0.2:
            first += rng.choice(_MARKS)
        if tail and rng.random() < _BOUNDED_SHARE:
            second += rng.choice((",", ";", ":", " -", "."))
        statement = _sentence(lead, first, link, second, tail) + rng.choice(_ENDS)
        front = statement.partition("{value}")[0].rstrip("\"'([<* ")
        questions = [self._question(rng, lead, link, tail, front) for _ in range(2)]
        if "{key}" in front:
            questions.append(front)
        noun = self._noun(rng)
        return Wording(noun, noun, statement, tuple(questions))

    def draw_value_list(self, rng: Random, wording: Wording) -> str:
        """Draw a question for all values of one key."""
        if rng.random() < 0.5:
            return rng.choice(wording.questions)
        asked = [*self._asking(rng), "{nouns}", *self._some(rng, 0, 3), "{key}"]
        return self._ended(rng, [*asked, *self._some(rng, 0, 2)], "")

    def draw_key_list(self, rng: Random, wording: Wording) -> str:
        """Draw a question for the values of several keys."""
        noun = ["{nouns}"] if rng.random() < 0.6 else []
        asked = [*self._asking(rng), *noun, *self._some(rng, 0, 3), "{keys}"]
        return self._ended(rng, [*asked, *self._some(rng, 0, 3)], "")

    def draw_assignment(self, rng: Random) -> Assignment:
        """Draw a way to hand values on."""
        lead, tail, mark = self._some(rng, 0, 3), self._some(rng, 0, 2), rng.choice(_MARKS)
        link = self._some(rng, 0, 3)
        end = rng.choice(_ENDS)
        same = link if rng.random() < 0.5 else [*link, *self._some(rng, 1, 3)]
        value = _sentence(lead, "{name}" + mark, link, "{value}", tail) + end
        copy = _sentence(lead, "{name}" + mark, same, "{other}", tail) + end
        kept = [*_kept(rng, lead), *_kept(rng, link)]
        return Assignment(value, copy, self._ended(rng, [*self._asking(rng), *kept, "{value}"], ""))

    def _question(
        self, rng: Random, lead: list[str], link: list[str], tail: list[str], front: str
    ) -> str:
        """Ask with some words of a statement, in their order, and some others."""
        share = rng.uniform(0.4, 1.0)
        words = [_kept(rng, part, share) for part in (lead, link, tail)]
        asked = [*self._asking(rng), *words[0], "{key}", *words[1], *words[2]]
        if rng.random() < 0.4:  # the key is asked for elsewhere
            asked.remove("{key}")
            asked.insert(rng.randint(1, len(asked)) if asked else 0, "{key}")
        before = front.replace("{key}", "").split()[-rng.randint(1, 4) :]
        return self._ended(rng, asked, " ".join(before))

    def _asking(self, rng: Random) -> list[str]:
        """Draw how a question begins: with a word that asks, other words, or at once."""
        opening = [rng.choice(_ASKING)] if rng.random() < 0.7 else []
        return opening + (self._some(rng, 1, 3) if rng.random() < 0.3 else [])

    def _ended(self, rng: Random, asked: Sequence[str], before_value: str) -> str:
        """End a question, often with words that the answer continues."""
        text = " ".join(asked) + rng.choice(("?", "?", "?", ":", ",", ""))
        draw = rng.random()
        if draw < 0.25:
            text += f" {rng.choice(_CUES)}"
        elif draw < 0.5 and before_value:
            text += f" {before_value}"
        elif draw < 0.65:
            text += f" {' '.join(self._some(rng, 1, 3))}"
        return text.strip()

    def _some(self, rng: Random, fewest: int, most: int) -> list[str]:
        """Draw words that follow each other in the text."""
        if not self._passage:
            self._passage = self._read(rng)
        count = rng.randint(fewest, most)
        start = rng.randint(0, len(self._passage) - count)
        return self._passage[start : start + count]

    def _read(self, rng: Random) -> list[str]:
        """Return the words of a passage, at least as many as are drawn at once."""
        words: list[str] = []
        for _ in range(_TRIES):
            place = rng.randrange(self._haystack.num_tokens)
            text = self._words.decode(self._haystack.read(place, _PASSAGE).tolist())
            words += _WORD.findall(text)
            if len(words) >= _FEWEST_WORDS:
                return words
        return [*words, *_ASKING]

    def _noun(self, rng: Random) -> str:
        letters = "".join(filter(str.isalpha, self._some(rng, 1, 1)[0]))
        return letters.lower() or "thing"


def _enclosed(rng: Random, place: str) -> str:
    if rng.random() < _PLAIN_SHARE:
        return place
    before, behind = rng.choice(_AROUND)
    return before + place + behind


def _kept(rng: Random, words: Sequence[str], share: float = 0.6) -> list[str]:
    return [word for word in words if rng.random() < share]


def _sentence(lead: list[str], first: str, link: list[str], second: str, tail: list[str]) -> str:
    text = " ".join([*lead, first, *link, second, *tail])
    return text if text.startswith("{") else text[:1].upper() + text[1:]
