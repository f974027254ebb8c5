"""Self-copy: a span of the text comes again later, at any alignment, and is to be continued."""

from __future__ import annotations

from random import Random

from gcattn.data.needle_tasks.exercise import Exercise, Needle, Question
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary

# tokens of the span that are repeated before the model has to continue
_CUE_TOKENS = 16
_MOST_TRAINING_STRETCH = 8
_PLAIN_SHARE = 0.5


def self_copy(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """A span whose first 16 tokens come again; the `count` tokens after them are asked for.

    Spans are shuffled text, which nothing but the span itself predicts. In training half of them
    are left in order, and they are up to eight times as long, so that they cross chunks.

    Raises:
        ValueError: The haystack holds little but special tokens.
    """
    is_training = words.split == "train"
    if is_training:
        count = rng.randint(count, _MOST_TRAINING_STRETCH * count)
    num_tokens = _CUE_TOKENS + count
    text = haystack.read(rng.randrange(haystack.num_tokens), 4 * num_tokens).tolist()
    span = [token for token in text if token not in words.special_ids][:num_tokens]
    if len(span) < num_tokens:
        raise ValueError(
            f"{haystack.shards.folder} holds too little but special tokens to copy a span of it; "
            "prepare longer documents."
        )
    if not (is_training and rng.random() < _PLAIN_SHARE):
        rng.shuffle(span)
    needle = Needle(tuple(span), _CUE_TOKENS, len(span))
    question = Question(tuple(span[:_CUE_TOKENS]), tuple(span[_CUE_TOKENS:]), (), (0,))
    return Exercise(((needle,),), (question,))
