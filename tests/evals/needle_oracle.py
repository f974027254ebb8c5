"""A model that knows the answers, but for the mistakes it is told to make."""

from types import SimpleNamespace

import torch

from gcattn.models.cache_name import CACHE_NAME, named_cache


class OracleCache:
    """All tokens read so far, row by row."""

    def __init__(self, rows):
        self.rows = rows

    def batch_repeat_interleave(self, repeats):
        self.rows = [list(row) for row in self.rows for _ in range(repeats)]


class Oracle:
    """Looks up the question asked last and goes on with its answer.

    Args:
        questions: What it can answer.
        mistakes: Pairs (number of the question, place in its answer) that it gets wrong.
        needs_truth: Answers only while all earlier answers in the text are right.
    """

    device = torch.device("cpu")
    config = SimpleNamespace()
    vocab_size = 16_384

    def __init__(self, questions, mistakes=(), *, needs_truth=False):
        self.questions = questions
        self.mistakes = set(mistakes)
        self.needs_truth = needs_truth

    def __call__(self, input_ids, use_cache, logits_to_keep, **past):
        cache = past[CACHE_NAME] or OracleCache([[] for _ in input_ids])
        for row, new in zip(cache.rows, input_ids.tolist(), strict=True):
            row += new
        logits = torch.zeros(len(cache.rows), logits_to_keep, self.vocab_size)
        for number, row in enumerate(cache.rows):
            logits[number, -1, self._next(row)] = 1.0
        return SimpleNamespace(logits=logits, **named_cache(cache))

    def _next(self, row):
        wrong = 2  # no key or value holds it: see the vocabulary of the tests
        asked = [(_last_end(row, q.prompt), n) for n, q in enumerate(self.questions)]
        end, number = max(asked)
        place = len(row) - end
        question = self.questions[number]
        if end < 0 or place >= len(question.answer) or (number, place) in self.mistakes:
            return wrong
        if self.needs_truth and any(
            tuple(row[e : e + len(q.answer)]) != q.answer
            for q, (e, _) in zip(self.questions[:number], asked, strict=False)
        ):
            return wrong
        return question.answer[place]


def _last_end(row, prompt):
    """Return where the last occurrence of a prompt ends, -1 without one."""
    for place in range(len(row) - len(prompt), -1, -1):
        if tuple(row[place : place + len(prompt)]) == prompt:
            return place + len(prompt)
    return -1
