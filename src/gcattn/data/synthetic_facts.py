"""Facts of the synthetic corpus: stated once in a document, later only to be recalled."""

from dataclasses import dataclass
from random import Random
from typing import get_args

from gcattn.data.words.corpus_words import (
    COLOURS,
    FIRST_NAMES,
    ITEMS,
    LAST_NAMES,
    MATERIALS,
    PLACES,
    TRADES,
)
from gcattn.data.words.split import Split

# one in this many names and codes belongs to validation, the others to training
_VALIDATION_SHARE = 4


@dataclass(frozen=True)
class Fact:
    """A fact as it is stated and as it is recalled; both paragraphs end with `body`, verbatim."""

    statement_prompt: str
    recall_prompt: str
    body: str

    @property
    def statement(self) -> str:
        """The paragraph that states the fact."""
        return self.statement_prompt + self.body

    @property
    def recall(self) -> str:
        """The paragraph that repeats it later."""
        return self.recall_prompt + self.body


def names_of_split(split: Split) -> list[str]:
    """Return the full names of a split; no name is in both."""
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {get_args(Split)}, got {split!r}.")
    return [
        f"{first} {last}"
        for i, first in enumerate(FIRST_NAMES)
        for j, last in enumerate(LAST_NAMES)
        if _is_of_split(i + j, split)
    ]


def draw_description(rng: Random, item: str) -> Fact:
    """Draw what some items are like: five words of five kinds, the same kinds for every item.

    The recall names the items more than a chunk before it describes them, so that a model has asked
    its memory in between.
    """
    body = (
        f" {rng.choice(COLOURS)} {rng.choice(MATERIALS)} of {rng.choice(FIRST_NAMES)} "
        f"the {rng.choice(TRADES)} in {rng.choice(PLACES)}."
    )
    recall = (
        f"Now of the {item}. All the people in the town spoke of the {item} and nobody could "
        f"forget them. As was said before, the {item} were"
    )
    return Fact(f"The {item} were", recall, body)


def draw_record(rng: Random, name: str) -> Fact:
    """Draw a list of 24 to 36 words that nothing before it predicts."""
    body = f" {' '.join(rng.sample(_WORDS, rng.randint(24, 36)))}."
    return Fact(f"Record of {name}:", f"Recall the record of {name}:", body)


def draw_code(rng: Random, name: str, split: Split) -> Fact:
    """Draw a five-digit code; no code is in both splits."""
    code = rng.choice([code for code in _draw_numbers(rng) if _is_of_split(code, split)])
    prompt = f"The code of {name} is"
    return Fact(prompt, f"What is the code of {name}? {prompt}", f" {code}.")


def _draw_numbers(rng: Random) -> range:
    """Draw a run of numbers long enough to hold some of either split."""
    start = rng.randrange(10_000, 100_000 - _VALIDATION_SHARE)
    return range(start, start + _VALIDATION_SHARE)


def _is_of_split(number: int, split: Split) -> bool:
    return (number % _VALIDATION_SHARE == 0) == (split == "validation")


# the words of records: drawn without repetition, so each one tells what follows it
_WORDS = (*COLOURS, *ITEMS, *MATERIALS, *PLACES, *TRADES, *FIRST_NAMES)
