"""What the relations of stories have as values, and the people they are told of."""

from collections.abc import Callable
from random import Random

from gcattn.data.words.corpus_words import MATERIALS, PLACES, TRADES
from gcattn.data.words.ordinary_words import ADJECTIVES, NOUNS
from gcattn.data.words.texts import Texts

_DISHES = (
    *("barley soup", "roast goose", "plum pudding", "pickled herring", "apple pie", "cheese"),
    *("mutton stew", "fried trout", "honey cake", "onion tart", "veal pie", "rye bread"),
    *("stewed pears", "boiled eggs", "lentils", "smoked ham", "gingerbread", "turnip mash"),
)
_INSTRUMENTS = (
    *("fiddle", "flute", "harp", "drum", "trumpet", "bagpipes", "lute", "cello", "organ", "horn"),
    *("oboe", "viola", "zither", "bassoon", "accordion", "banjo"),
)


def draw_person(rng: Random, texts: Texts) -> str:
    """Draw a name of a split; half of the family names are invented."""
    name = texts.draw(rng, "name")[0]
    return name if rng.random() < 0.5 else f"{name.split()[0]} {_made_up_name(rng, texts)}"


def _pick(choices: tuple[str, ...]) -> Callable[[Random, Texts], str]:
    return lambda rng, texts: rng.choice(choices)


def _number(least: int, most: int) -> Callable[[Random, Texts], str]:
    return lambda rng, texts: str(rng.randint(least, most))


def _made_up_name(rng: Random, texts: Texts) -> str:
    return texts.draw(rng, "made-up")[0].split()[0].capitalize()


VALUES: dict[str, Callable[[Random, Texts], str]] = {
    "place": lambda rng, texts: (
        rng.choice(PLACES) if rng.random() < 0.3 else _made_up_name(rng, texts)
    ),
    "trade": _pick(TRADES),
    "year": _number(1500, 1899),
    "person": draw_person,
    "pet": _made_up_name,
    "dish": _pick(_DISHES),
    "thing": lambda rng, texts: f"{rng.choice(MATERIALS)} {rng.choice(NOUNS)}",
    "sum": _number(2, 9999),
    "ship": lambda rng, texts: (
        f"{rng.choice(ADJECTIVES).capitalize()} {rng.choice(NOUNS).capitalize()}"
    ),
    "instrument": _pick(_INSTRUMENTS),
    "number": _number(1, 400),
}
