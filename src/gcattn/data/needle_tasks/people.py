"""People told of in a text, and natural questions about them: stories as needles."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from gcattn.data.needle_tasks.exercise import Exercise, Needle
from gcattn.data.needle_tasks.free_wordings import FreeWordings
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.natural_question import natural_question
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary
from gcattn.data.needle_tasks.wordings import Wording
from gcattn.data.stories.relations import Relation
from gcattn.data.stories.story import Person, ask, draw_people, tell_with_places
from gcattn.data.stories.tellings import Telling
from gcattn.data.words.templates import fill


def people(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """`count` people with a few facts each, a paragraph for each; a fact of one is asked for.

    In training a fact of each is: questions cost few tokens, and answers teach the most.
    """
    return _exercise(rng, words, draw_people(rng, words.texts, count, set()))


def free_people(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """The same in words of the text; people with a fact in common are told of in the same words."""
    source = FreeWordings(words, haystack)
    retold: dict[str, Relation] = {}
    drawn = []
    for person in draw_people(rng, words.texts, count, set()):
        facts = {}
        for relation, value in person.facts.items():
            if relation.name not in retold:
                telling = _telling(source.draw(rng))
                retold[relation.name] = replace(relation, training=telling, evaluation=telling)
            facts[retold[relation.name]] = value
        drawn.append(Person(person.name, facts))
    return _exercise(rng, words, drawn)


def _telling(wording: Wording) -> Telling:
    named = [fill(text, key="{name}") for text in (wording.statement, *wording.questions)]
    return Telling((named[0],), tuple(named[1:]), of="")


def _exercise(rng: Random, words: NeedleVocabulary, drawn: list[Person]) -> Exercise:
    split = words.split
    num_asked = len(drawn) if split == "train" else 1
    groups, questions = [], []
    for number, person in enumerate(drawn):
        text, places = tell_with_places(rng, person, split)
        relation = rng.choice(list(places))
        place = places[relation]
        ids, start, stop = words.encode_part(f"\n{text}\n", 1 + place.start, 1 + place.stop)
        groups.append((Needle(ids, start, stop),))
        if number < num_asked:
            asked = ask(rng, person, split, relation)
            questions.append(natural_question(words, asked.question, asked.answer, number))
    return Exercise(tuple(groups), tuple(questions))
