"""RULER's variable tracking: a value handed on from name to name; all names are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from string import ascii_uppercase

from gcattn.data.needle_tasks.phrases import TokenIds
from gcattn.data.ruler.needles import NOISE, in_noise
from gcattn.data.ruler.sample import LENGTH_SPREAD, RulerSample
from gcattn.data.ruler.source import RulerSource

NUM_NEW_TOKENS = 30
_NUM_NAMES = 5
_NAME_LETTERS = 5
# of the example before every sample, which shows what is asked
_EXAMPLE_LETTERS = 3
_EXAMPLE_LINES = 8
_INSTRUCTION = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n"
)


def draw_tracking(rng: Random, source: RulerSource, length: int) -> RulerSample:
    """Draw a sample of at most `length` tokens: one chain of five names, and a solved example.

    Raises:
        ValueError: The length has no room for it.
    """
    taken: set[str] = set()
    example = _chain(rng, _EXAMPLE_LETTERS, taken)
    lines = [NOISE] * _EXAMPLE_LINES
    places = sorted(rng.randint(0, _EXAMPLE_LINES) for _ in example.lines)
    for number, (place, line) in enumerate(zip(places, example.lines, strict=True)):
        lines.insert(place + number, line)
    solved = (
        _INSTRUCTION + "\n" + "\n".join(lines) + example.question + f" {' '.join(example.names)}"
    )
    chain = _chain(rng, _NAME_LETTERS, taken)
    opening = source.encode(f"{solved}\n\n{_INSTRUCTION}")
    prompt = source.encode(chain.question)
    needles: list[TokenIds] = source.encode_all(["\n" + line for line in chain.lines])
    room = length - NUM_NEW_TOKENS - len(prompt) - len(opening) - sum(map(len, needles))
    if room < 0:
        raise ValueError(f"vt needs a length of at least {length - room} tokens, got {length}.")
    room -= rng.randrange(max(1, min(LENGTH_SPREAD, room)))
    context = in_noise(rng, source, opening, needles, room)
    return RulerSample(context, prompt, tuple(chain.names), "all", NUM_NEW_TOKENS)


@dataclass(frozen=True)
class _Chain:
    """Names of one value, the lines that assign it, and the question for them."""

    names: list[str]
    lines: list[str]
    question: str


def _chain(rng: Random, num_letters: int, taken: set[str]) -> _Chain:
    names: list[str] = []
    while len(names) < _NUM_NAMES:
        name = "".join(rng.choices(ascii_uppercase, k=num_letters))
        if name not in taken:
            taken.add(name)
            names.append(name)
    value = rng.randint(10_000, 99_999)
    lines = [f"VAR {names[0]} = {value}"]
    lines += [f"VAR {name} = VAR {before}" for before, name in pairwise(names)]
    question = (
        f"\nQuestion: Find all variables that are assigned the value {value} in the text above. "
        "Answer: According to the chain(s) of variable assignment in the text above, "
        f"{_NUM_NAMES} variables are assigned the value {value}, they are:"
    )
    return _Chain(names, lines, question)
