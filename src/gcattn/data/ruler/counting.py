"""RULER's aggregation: the ten commonest words of a list, the three most frequent coded words."""

from __future__ import annotations

import math
from itertools import islice
from random import Random
from string import ascii_lowercase

from gcattn.data.needle_tasks.phrases import TokenIds
from gcattn.data.ruler.sample import FixedText, RulerSample
from gcattn.data.ruler.source import RulerSource, whole

NUM_NEW_COMMON, NUM_NEW_FREQUENT = 120, 50
_NUM_COMMON = 10
# how often common and other words come, by length; the example in front has fewer words
_SHORT = 4096
_SHORT_TIMES, _LONG_TIMES = (6, 1), (30, 3)
_SHORT_EXAMPLE, _LONG_EXAMPLE = (20, 3, 1), (40, 10, 3)
# numbers of more digits and words of more tokens are to come
_FIRST_GUESS = 1.2
_LIST = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n"
)
_LIST_QUESTION = (
    "\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words "
    "that appear most often in the list are:"
)
_CODED = (
    "Read the following coded text and track the frequency of each coded word. Find the three most "
    "frequently appeared coded words."
)
_CODED_QUESTION = (
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three "
    "most frequently appeared words in the above coded text? Answer: According to the coded text "
    "above, the three most frequently appeared words are:"
)
_CODED_LETTERS = 6
_ALPHA = 2.0
_ZETA_OF_ALPHA = math.pi**2 / 6
_TOKENS_PER_CODED_WORD = 50


def draw_common_words(rng: Random, source: RulerSource, length: int) -> RulerSample:
    """Draw `cwe`: a numbered list in which ten words come ten times as often as the others.

    Raises:
        ValueError: The length has no room for ten words.
    """
    words = source.words(rng)
    is_short = length < _SHORT
    num_shown, *shown_times = _SHORT_EXAMPLE if is_short else _LONG_EXAMPLE
    shown = list(islice(words, num_shown))
    example = _numbered(rng, shown, shown_times[0], shown_times[1])
    answer = "".join(f" {i}. {word}" for i, word in enumerate(shown[:_NUM_COMMON], 1))
    opening = source.encode(f"{_LIST}{example}{_LIST_QUESTION}{answer}\n{_LIST}")
    prompt = source.encode(_LIST_QUESTION)
    room = length - NUM_NEW_COMMON - len(prompt) - len(opening)
    common_times, other_times = _SHORT_TIMES if is_short else _LONG_TIMES
    # the ten common words alone; as many others as there is room for, found from above
    chosen = list(islice(words, _NUM_COMMON + 1))
    ids = source.encode(_numbered(rng, chosen, common_times, other_times))
    per_word = (len(ids) / (common_times * _NUM_COMMON + other_times)) * other_times
    chosen += islice(words, max(0, int(_FIRST_GUESS * (room - len(ids)) / per_word)))
    while len(chosen) > _NUM_COMMON:
        ids = source.encode(_numbered(rng, chosen, common_times, other_times))
        if len(ids) <= room:
            break
        others = len(chosen) - _NUM_COMMON
        del chosen[_NUM_COMMON + min(others - 1, int(others * room / len(ids))) :]
    else:
        raise ValueError(f"cwe needs a length of more than {length} tokens; lengthen the context.")
    context = FixedText(whole([opening, ids]))
    return RulerSample(context, prompt, tuple(chosen[:_NUM_COMMON]), "all", NUM_NEW_COMMON)


def draw_frequent_words(rng: Random, source: RulerSource, length: int) -> RulerSample:
    """Draw `fwe`: words of six letters, the k-th commonest 1/k² as often as the first, dots.

    Raises:
        ValueError: The length has no room for three of them.
    """
    opening, prompt = source.encode(_CODED), source.encode(_CODED_QUESTION)
    room = length - NUM_NEW_FREQUENT - len(opening) - len(prompt)
    coded: dict[str, TokenIds] = {"...": source.encode(" ...")}
    while len(coded) < max(8, length // _TOKENS_PER_CODED_WORD):
        word = "".join(rng.choices(ascii_lowercase, k=_CODED_LETTERS))
        coded[word] = source.encode(f" {word}")
    # as many words in all as there is room for: each count follows from it
    low, high = 0, max(room, 0)
    while low < high:
        middle = (low + high + 1) // 2
        cost = sum(
            n * len(ids) for n, ids in zip(_counts(middle, len(coded)), coded.values(), strict=True)
        )
        low, high = (middle, high) if cost <= room else (low, middle - 1)
    counts = _counts(low, len(coded))
    if counts[3] < 1 or counts[3] == counts[4]:
        raise ValueError(f"fwe needs a length of more than {length} tokens; lengthen the context.")
    parts = [ids for n, ids in zip(counts, coded.values(), strict=True) for _ in range(n)]
    rng.shuffle(parts)
    answers = tuple(list(coded)[1:4])
    return RulerSample(
        FixedText(whole([opening, *parts])), prompt, answers, "all", NUM_NEW_FREQUENT
    )


def _counts(num_words: int, num_kinds: int) -> list[int]:
    return [int(num_words * k**-_ALPHA / _ZETA_OF_ALPHA) for k in range(1, num_kinds + 1)]


def _numbered(rng: Random, words: list[str], common_times: int, other_times: int) -> str:
    """List words, the first ten `common_times` each, in a random order."""
    listed = words[:_NUM_COMMON] * common_times + words[_NUM_COMMON:] * other_times
    rng.shuffle(listed)
    return "".join(f" {i}. {word}" for i, word in enumerate(listed, 1))
