"""Stories about people, with facts that are asked for later in natural language.

A story is paragraphs of facts among paragraphs of other text; every question has one answer, which
the story states once, in words other than the question's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from gcattn.data.stories.relations import RELATIONS, Relation
from gcattn.data.stories.values import VALUES, draw_person
from gcattn.data.words.corpus_words import SCENE_WORDS, SCENES
from gcattn.data.words.split import Split
from gcattn.data.words.templates import fill
from gcattn.data.words.texts import Texts

_FEWEST_FACTS, _MOST_FACTS = 2, 4
# relations whose value is somebody: a question can continue from there
_TO_PERSON = tuple(relation for relation in RELATIONS if relation.value == "person")


@dataclass(frozen=True)
class StoryQuestion:
    """A question about a story, its answer, and the relations that lead to it."""

    question: str
    answer: str
    relations: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """A text and what can be asked of it."""

    text: str
    questions: tuple[StoryQuestion, ...]


@dataclass(frozen=True)
class Person:
    """Somebody of whom a paragraph tells.

    Attributes:
        name: Whole name.
        facts: Values by relation.
    """

    name: str
    facts: dict[Relation, str]


def draw_people(rng: Random, texts: Texts, count: int, taken: set[str]) -> list[Person]:
    """Draw people with a few facts each; no name comes twice or is in `taken`, nor as a value."""

    def new_name() -> str:
        while True:
            name = draw_person(rng, texts)
            if name not in taken:
                taken.add(name)
                return name

    people = []
    for _ in range(count):
        name, facts = new_name(), {}
        for relation in rng.sample(RELATIONS, rng.randint(_FEWEST_FACTS, _MOST_FACTS)):
            is_person = relation.value == "person"
            facts[relation] = new_name() if is_person else VALUES[relation.value](rng, texts)
        people.append(Person(name, facts))
    return people


def tell(rng: Random, person: Person, split: Split) -> str:
    """Return a paragraph that states every fact of a person."""
    return tell_with_places(rng, person, split)[0]


def tell_with_places(
    rng: Random, person: Person, split: Split
) -> tuple[str, dict[Relation, range]]:
    """Return the paragraph, and which of its characters are the value of each fact."""
    text, places = "", {}
    for relation, value in person.facts.items():
        statement = rng.choice(relation.telling(split).statements)
        front = text + (" " if text else "")
        front += fill(statement.partition("{value}")[0], name=person.name)
        places[relation] = range(len(front), len(front) + len(value))
        text = front + value + fill(statement.partition("{value}")[2], name=person.name)
    return text, places


def ask(
    rng: Random, person: Person, split: Split, relation: Relation | None = None
) -> StoryQuestion:
    """Ask for one fact of a person, any of them by default."""
    relation = relation or rng.choice(list(person.facts))
    question = fill(rng.choice(relation.telling(split).questions), name=person.name)
    return StoryQuestion(question, person.facts[relation], (relation.name,))


def link(rng: Random, person: Person, other: Person, split: Split) -> tuple[Person, StoryQuestion]:
    """Let a person know another one, and ask for what is said of the other by way of the first.

    Returns:
        The first person with the link among the facts, and the question.
    """
    relation = rng.choice(_TO_PERSON)
    linked = Person(person.name, {**person.facts, relation: other.name})
    last, answer = rng.choice(
        [(r, v) for r, v in other.facts.items() if r.value != "person"] or [*other.facts.items()]
    )
    via = fill(relation.telling(split).of, name=person.name)
    question = fill(rng.choice(last.telling(split).questions), name=via)
    return linked, StoryQuestion(question, answer, (relation.name, last.name))


def scenes(rng: Random) -> Iterator[str]:
    """Yield paragraphs of everyday scenes, which say nothing of anybody."""
    while True:
        words = {kind: rng.choice(choices) for kind, choices in SCENE_WORDS.items()}
        yield " ".join(rng.choice(SCENES)).format(**words)


def draw_story(
    rng: Random,
    texts: Texts,
    num_tokens: int,
    num_questions: int,
    *,
    filler: Iterator[str],
    count: Callable[[str], int],
    fact_share: float = 0.2,
) -> Story:
    """Draw a story of at most `num_tokens` tokens.

    Args:
        rng: Decides everything.
        texts: Draws names; its split decides the words too.
        num_tokens: Length of the story.
        num_questions: Questions about it, each about somebody else.
        filler: Paragraphs of other text, as many as it takes.
        count: Tokens of a paragraph.
        fact_share: Share of the tokens that tell of people; at least the asked ones are told of.

    Raises:
        ValueError: The people who are asked about do not fit into the story.
    """
    told: list[str] = []
    questions: list[StoryQuestion] = []
    used = 0
    taken: set[str] = set()
    while len(questions) < num_questions or used < fact_share * num_tokens:
        (person,) = draw_people(rng, texts, 1, taken)
        paragraph = tell(rng, person, texts.split)
        size = count(paragraph)
        if used + size > num_tokens:
            if len(questions) < num_questions:
                raise ValueError(
                    f"{num_questions} questions need more than {num_tokens} tokens of story; ask "
                    "fewer or lengthen the story."
                )
            break
        told.append(paragraph)
        used += size
        if len(questions) < num_questions:
            questions.append(ask(rng, person, texts.split))
    around: list[str] = []
    for paragraph in filler:
        used += count(paragraph)
        if used > num_tokens:
            break
        around.append(paragraph)
    # each told paragraph before some paragraph of the filler, in a random order
    places = sorted(rng.randint(0, len(around)) for _ in told)
    rng.shuffle(told)
    paragraphs = []
    for number in range(len(around) + 1):
        while places and places[0] == number:
            places.pop(0)
            paragraphs.append(told.pop())
        paragraphs += around[number : number + 1]
    rng.shuffle(questions)
    return Story("\n".join(paragraphs), tuple(questions))
