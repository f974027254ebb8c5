"""What stories tell of people: relations, with the words of training and those of evaluation.

A relation is stated in a sentence and asked for in a question; the answer is the value alone. No
run of four words of an evaluation sentence is in a training one.
"""

from __future__ import annotations

from dataclasses import dataclass

from gcattn.data.stories.tellings import Telling, tellings_of
from gcattn.data.words.split import Split

# relations and the kinds of their values
_KINDS = {
    "home": "place",
    "trade": "trade",
    "birth year": "year",
    "spouse": "person",
    "pet": "pet",
    "dish": "dish",
    "hiding place": "thing",
    "price": "sum",
    "ship": "ship",
    "instrument": "instrument",
    "rival": "person",
    "room": "number",
}


@dataclass(frozen=True)
class Relation:
    """One thing that can be said of somebody.

    Attributes:
        name: Names it in results.
        value: Which kind of value it has: a key of `gcattn.data.stories.values.VALUES`.
        training: Words of training.
        evaluation: Words of evaluation.
    """

    name: str
    value: str
    training: Telling
    evaluation: Telling

    def telling(self, split: Split) -> Telling:
        """Return the words of a split."""
        return self.training if split == "train" else self.evaluation


RELATIONS = tuple(
    Relation(name, kind, tellings_of("train")[name], tellings_of("validation")[name])
    for name, kind in _KINDS.items()
)
