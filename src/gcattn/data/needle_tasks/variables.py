"""Variable tracking: which variables hold a value that was handed on from one to the next."""

from __future__ import annotations

from random import Random

from gcattn.data.needle_tasks.exercise import Exercise, Needle, Question
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.secrets import join
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary

_NUM_CHAINS = 2


def variables(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """Two values, each handed on through `count` variables; those of one value are asked for."""
    say = words.phrases
    names = words.draw_keys(rng, _NUM_CHAINS * count)
    values = [words.draw_value(rng) for _ in range(_NUM_CHAINS)]
    groups = []
    for number, value in enumerate(values):
        chain = names[number * count : (number + 1) * count]
        sources = [value, *(say.the_variable + name for name in chain[:-1])]
        groups.append(
            tuple(
                Needle(
                    say.variable + name + say.equals + source + say.end,
                    len(say.variable),
                    len(say.variable + name),
                )
                for name, source in zip(chain, sources, strict=True)
            )
        )
    value = values[0]
    prompt = say.which_variables_equal + value + say.so_variables_equal + value + say.are
    question = Question(prompt, join(names[:count], say), say.end, tuple(range(count)))
    return Exercise(tuple(groups), (question,))
