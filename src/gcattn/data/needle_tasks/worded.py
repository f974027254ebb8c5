"""Needles in anybody's words: keys, values and wordings drawn again for every exercise.

The other tasks hide one sentence; these hide what a letter, a table, a log or a program might say,
among statements that differ from it in little, and ask in the same or in other words.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

from gcattn.data.examples.example import question_prompt
from gcattn.data.needle_tasks.exercise import Exercise, Needle, Question
from gcattn.data.needle_tasks.phrases import TokenIds
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary
from gcattn.data.needle_tasks.wordings import Wording, WordingSource
from gcattn.data.words.templates import fill, joined

# what stands before and after a statement, and a question
_BEFORE = ("\n", "\n\n", " ")
_BEHIND = ("\n", "\n\n", " ")
_BEHIND_LINE = ("\n", "\n\n")
_BEFORE_QUESTION = ("\n", "\n\n")
_BEHIND_ANSWER = ("\n", ".\n", "\n\n")
# of statements about other keys, those in the words of the asked one
_SAME_WORDING_SHARE = 0.7
# of exercises with several keys, those that say something else of the asked key too
_SECOND_FACT_SHARE = 0.2
# of several asked keys in training, those asked for one after the other; evaluation asks at once
_ONE_BY_ONE_SHARE = 0.5
# questions of a training exercise with several keys, at most
_MAX_ASKED = 4
# of training questions, those put as `gcattn ask` puts them
_FORMAL_SHARE = 0.3
_NUM_CHAINS = 2
# of variables, whose names hold no space
_NAME_KINDS = ("letters", "code", "hyphenated", "hex")


def worded_single(
    rng: Random, words: NeedleVocabulary, source: WordingSource, count: int
) -> Exercise:
    """One statement, and a question for its value."""
    return worded_multi_key(rng, words, source, 1)


def worded_multi_key(
    rng: Random, words: NeedleVocabulary, source: WordingSource, count: int
) -> Exercise:
    """`count` keys with a value each, most in the same words; one is asked for.

    At times the asked key is stated a second time, with something else than what is asked. In
    training, questions for other keys may follow: they cost few tokens, and answers teach the most.
    """
    wording = source.draw(rng)
    keys, values = _pairs(rng, words, count)
    groups, said = _statements(rng, words, source, wording, keys, values)
    if count > 1 and rng.random() < _SECOND_FACT_SHARE:
        other = source.draw(rng)
        if other.noun != wording.noun and other.style != wording.style:
            value = words.texts.draw(rng, words.texts.draw_kind(rng))[0]
            groups.append((_statement(rng, words, other, keys[0], value),))
    num_asked = rng.randint(1, min(count, _MAX_ASKED)) if words.split == "train" else 1
    questions = []
    for number in range(num_asked):
        prompt = fill(rng.choice(said[number].questions), key=keys[number])
        questions.append(_question(rng, words, prompt, values[number], (number,)))
    return Exercise(tuple(groups), tuple(questions))


def worded_multi_value(
    rng: Random, words: NeedleVocabulary, source: WordingSource, count: int
) -> Exercise:
    """One key with `count` values in the same words, asked for in the order of the text."""
    wording = source.draw(rng)
    key = words.texts.draw(rng, words.texts.draw_kind(rng))[0]
    values = words.texts.draw(rng, words.texts.draw_kind(rng), count)
    group = tuple(_statement(rng, words, wording, key, value) for value in values)
    form = source.draw_value_list(rng, wording)
    prompt = fill(form, key=key, noun=wording.noun, nouns=f"{wording.noun}s")
    question = _question(rng, words, prompt, joined(values), tuple(range(count)))
    return Exercise((group,), (question,))


def worded_multi_query(
    rng: Random, words: NeedleVocabulary, source: WordingSource, count: int
) -> Exercise:
    """Twice `count` keys with a value each; `count` are asked for, at once or one by one."""
    wording = source.draw(rng)
    keys, values = _pairs(rng, words, 2 * count)
    groups, _ = _statements(rng, words, source, wording, keys, values, num_same=count)
    if words.split == "train" and rng.random() < _ONE_BY_ONE_SHARE:
        form = rng.choice(wording.questions)
        questions = [
            _question(rng, words, fill(form, key=keys[i]), values[i], (i,)) for i in range(count)
        ]
        return Exercise(tuple(groups), tuple(questions))
    form = source.draw_key_list(rng, wording)
    prompt = fill(form, keys=joined(keys[:count]), noun=wording.noun, nouns=f"{wording.noun}s")
    question = _question(rng, words, prompt, joined(values[:count]), tuple(range(count)))
    return Exercise(tuple(groups), (question,))


def worded_variables(
    rng: Random, words: NeedleVocabulary, source: WordingSource, count: int
) -> Exercise:
    """Two values, each handed on through `count` variables; those of one value are asked for.

    In training those of the other value are asked for after them.
    """
    form = source.draw_assignment(rng)
    kind = rng.choice(_NAME_KINDS)
    names = words.texts.draw(rng, kind, _NUM_CHAINS * count)
    values = words.texts.draw(rng, "number", _NUM_CHAINS)
    groups = []
    opens_free = not form.value.startswith("{")
    for number, value in enumerate(values):
        chain = names[number * count : (number + 1) * count]
        said = [fill(form.value, name=chain[0], value=value)]
        said += [
            fill(form.copy, name=name, other=other) for other, name in itertools.pairwise(chain)
        ]
        groups.append(
            tuple(
                _needle(rng, words, text, name, opens_free=opens_free)
                for text, name in zip(said, chain, strict=True)
            )
        )
    questions = []
    for number, value in enumerate(values if words.split == "train" else values[:1]):
        holders = tuple(range(number * count, (number + 1) * count))
        answer = joined([names[place] for place in holders])
        prompt = fill(form.question, value=value)
        questions.append(_question(rng, words, prompt, answer, holders))
    return Exercise(tuple(groups), tuple(questions))


def _pairs(rng: Random, words: NeedleVocabulary, count: int) -> tuple[list[str], list[str]]:
    keys = words.texts.draw_keys(rng, words.texts.draw_kind(rng), count)
    return keys, words.texts.draw(rng, words.texts.draw_kind(rng), count)


def _statements(
    rng: Random,
    words: NeedleVocabulary,
    source: WordingSource,
    wording: Wording,
    keys: Sequence[str],
    values: Sequence[str],
    num_same: int = 1,
) -> tuple[list[tuple[Needle, ...]], list[Wording]]:
    """State every key; the first `num_same` in the given words, the others mostly so.

    Returns the statements, and each one's wording.
    """
    groups: list[tuple[Needle, ...]] = []
    wordings: list[Wording] = []
    for number, (key, value) in enumerate(zip(keys, values, strict=True)):
        is_same = number < num_same or rng.random() < _SAME_WORDING_SHARE
        wordings.append(wording if is_same else source.draw(rng))
        groups.append((_statement(rng, words, wordings[-1], key, value),))
    return groups, wordings


def _statement(
    rng: Random, words: NeedleVocabulary, wording: Wording, key: str, value: str
) -> Needle:
    front, _, behind = wording.statement.partition("{value}")
    front, behind = fill(front, key=key), fill(behind, key=key)
    opens_free = not wording.statement.startswith("{")
    return _needle(rng, words, front + value + behind, value, len(front), opens_free=opens_free)


def _needle(
    rng: Random,
    words: NeedleVocabulary,
    text: str,
    part: str,
    place: int | None = None,
    *,
    opens_free: bool = True,
) -> Needle:
    """Encode a statement; what an answer repeats is `part`, at `place` or where it comes first.

    Keys and values at its ends have a line break beside them: they would have no bounds in text.
    """
    before = rng.choice(_BEFORE if opens_free else _BEFORE_QUESTION)
    behind = rng.choice(_BEHIND_LINE if text[-1].isalnum() else _BEHIND)
    start = len(before) + (text.index(part) if place is None else place)
    ids, first, last = words.encode_part(before + text + behind, start, start + len(part))
    return Needle(ids, first, last)


def _question(
    rng: Random, words: NeedleVocabulary, text: str, answer: str, evidence: tuple[int, ...]
) -> Question:
    before = rng.choice(_BEFORE_QUESTION)
    if words.split == "train" and rng.random() < _FORMAL_SHARE:
        prompt = words.encode(question_prompt(text))
    else:
        prompt = words.encode(before + text)
    ids: TokenIds = words.encode(f" {answer}")
    blank = words.number_opening
    # a space of its own tells nothing: to evaluation it is a part of the question
    if blank and ids[: len(blank)] == blank and (words.split != "train" or rng.random() < 0.5):
        prompt, ids = prompt + blank, ids[len(blank) :]
    return Question(prompt, ids, words.encode(rng.choice(_BEHIND_ANSWER)), evidence)
