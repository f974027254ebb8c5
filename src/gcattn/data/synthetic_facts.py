"""Facts of the synthetic corpus: stated once in a document, later only to be recalled."""

from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from gcattn.data.synthetic_words import (
    COLOURS,
    DAYS,
    FIRST_NAMES,
    ITEMS,
    LAST_NAMES,
    MATERIALS,
    PLACES,
    TRADES,
)

Split = Literal["train", "validation"]
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


def draw_record(rng: Random, name: str) -> Fact:
    """Draw a paragraph of about 60 to 100 tokens that nothing before it predicts."""
    clauses = (rng.choice(_CLAUSES)(rng) for _ in range(rng.randint(6, 9)))
    body = f" {'; '.join(clauses)}."
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


def _goods(rng: Random) -> str:
    return (
        f"{rng.randint(10, 99)} {rng.choice(COLOURS)} {rng.choice(ITEMS)} from {rng.choice(PLACES)}"
    )


def _debt(rng: Random) -> str:
    creditor = f"{rng.choice(FIRST_NAMES)} the {rng.choice(TRADES)}"
    return f"{rng.randint(100, 999)} crowns owed to {creditor}"


def _meeting(rng: Random) -> str:
    place, day = rng.choice(PLACES), rng.choice(DAYS)
    return f"met {rng.choice(FIRST_NAMES)} the {rng.choice(TRADES)} in {place} on {day}"


def _house(rng: Random) -> str:
    return (
        f"{rng.choice(MATERIALS)} {rng.choice(ITEMS)}, {rng.choice(MATERIALS)} {rng.choice(ITEMS)} "
        f"and {rng.choice(COLOURS)} {rng.choice(ITEMS)}"
    )


_CLAUSES = (_goods, _debt, _meeting, _house)
