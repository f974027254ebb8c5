"""Tasks about secrets: one or many keys, one or many values, numbers, and chains of keys."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from gcattn.data.needle_tasks.exercise import Exercise, Needle, Question
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.phrases import Phrases, TokenIds
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary


def single(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """One key with a value of several tokens."""
    (key,) = words.draw_keys(rng, 1)
    return _one_of([key], [words.draw_value(rng)], words.phrases)


def number(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """One key whose value is a number of seven digits."""
    (key,) = words.draw_keys(rng, 1)
    verb = words.phrases.is_ + words.number_opening
    return _one_of([key], [words.draw_number(rng)], words.phrases, verb)


def multi_key(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """`count` keys with a value each; one is asked for."""
    values = [words.draw_value(rng) for _ in range(count)]
    return _one_of(words.draw_keys(rng, count), values, words.phrases)


def multi_value(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """One key with `count` values, asked for in the order in which they were stated."""
    say = words.phrases
    (key,) = words.draw_keys(rng, 1)
    values = [words.draw_value(rng) for _ in range(count)]
    prompt = say.what_are_secrets_of + key + say.so_secrets_of + key + say.are
    question = Question(prompt, join(values, say), say.end, tuple(range(count)))
    return Exercise((tuple(_secret(key, value, say, say.is_) for value in values),), (question,))


def multi_query(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """Twice `count` keys with a value each; `count` of them are asked for, one after the other."""
    say = words.phrases
    keys = words.draw_keys(rng, 2 * count)
    values = [words.draw_value(rng) for _ in keys]
    needles = [(_secret(k, v, say, say.is_),) for k, v in zip(keys, values, strict=True)]
    questions = [_ask(keys[i], values[i], i, say, say.is_) for i in range(count)]
    return Exercise(tuple(needles), tuple(questions))


def two_hop(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """`count` chains key → key → value, stated in any order; the end of one is asked for."""
    return _chains(rng, words, count, num_hops=2)


def three_hop(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """`count` chains key → key → key → value, stated in any order; the end of one is asked for."""
    return _chains(rng, words, count, num_hops=3)


def two_hop_direct(
    rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int
) -> Exercise:
    """`two_hop` with links that name the next key at once: the next key follows "is"."""
    return _chains(rng, words, count, num_hops=2, least_words=0, most_words=0)


def three_hop_direct(
    rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int
) -> Exercise:
    """`three_hop` with links that name the next key at once."""
    return _chains(rng, words, count, num_hops=3, least_words=0, most_words=0)


def two_hop_varied(
    rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int
) -> Exercise:
    """`two_hop` with links of every length, from direct to plain."""
    return _chains(rng, words, count, num_hops=2, least_words=0)


def three_hop_varied(
    rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int
) -> Exercise:
    """`three_hop` with links of every length."""
    return _chains(rng, words, count, num_hops=3, least_words=0)


def join(items: list[TokenIds], say: Phrases) -> TokenIds:
    """Put "and" between items."""
    joined = items[0]
    for item in items[1:]:
        joined += say.and_ + item
    return joined


def _chains(
    rng: Random,
    words: NeedleVocabulary,
    count: int,
    num_hops: int,
    *,
    least_words: int | None = None,
    most_words: int | None = None,
) -> Exercise:
    """Draw chains; of the tokens of "the secret of", a link has the last `least` to `most` ones."""
    say = words.phrases
    whole = len(say.the_secret_of)
    least = whole if least_words is None else least_words
    most = whole if most_words is None else most_words
    keys = iter(words.draw_keys(rng, count * num_hops))
    groups: list[tuple[Needle, ...]] = []
    asked: tuple[TokenIds, TokenIds] | None = None
    for _ in range(count):
        chain = [next(keys) for _ in range(num_hops)]
        value = words.draw_value(rng)
        asked = asked or (chain[0], value)
        groups.append((_secret(chain[-1], value, say, say.is_),))
        for key, following in pairwise(chain):
            num_words = rng.randint(least, most) if least < most else most
            link = say.is_ + say.the_secret_of[whole - num_words :]
            groups.append((_secret(key, following, say, link),))
    assert asked is not None
    key, value = asked
    prompt = say.what_is_final_secret_of + key + say.so_final_secret_of + key + say.is_
    return Exercise(tuple(groups), (Question(prompt, value, say.end, (0,)),))


def _one_of(
    keys: list[TokenIds], values: list[TokenIds], say: Phrases, verb: TokenIds | None = None
) -> Exercise:
    """State every key and ask for the first one."""
    verb = verb or say.is_
    needles = [(_secret(key, value, say, verb),) for key, value in zip(keys, values, strict=True)]
    return Exercise(tuple(needles), (_ask(keys[0], values[0], 0, say, verb),))


def _secret(key: TokenIds, value: TokenIds, say: Phrases, verb: TokenIds) -> Needle:
    opening = say.secret_of + key + verb
    return Needle(opening + value + say.end, len(opening), len(opening) + len(value))


def _ask(key: TokenIds, value: TokenIds, needle: int, say: Phrases, verb: TokenIds) -> Question:
    # the last words before the answer are those before the value in the needle: copying suffices
    prompt = say.what_is_secret_of + key + say.so_secret_of + key + verb
    return Question(prompt, value, say.end, (needle,))
