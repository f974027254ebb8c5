"""Exercises of tasks that state and ask in natural language, and their texts."""

from random import Random

from gcattn.data.needle_tasks import NeedleTask, NeedleVocabulary


def exercises(tokenizer, haystack, split, name, number):
    """Yield the vocabulary and an exercise, `number` times."""
    words = NeedleVocabulary(tokenizer, split)
    for seed in range(number):
        yield words, NeedleTask.parse(name).draw(Random(seed), words, haystack)


def read(words, ids):
    """Return the text of some ids, without blanks around it."""
    return words.decode(list(ids)).strip()


def asked(words, question):
    """Return a question as it was put."""
    prompt = words.decode(list(question.prompt))
    return prompt.removeprefix("\n\nQuestion: ").split("\nAnswer:")[0].removesuffix("?")
