"""What RULER samples are drawn from: a tokenizer, haystack, words, questions with documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.phrases import TokenIds
from gcattn.data.ruler.question_files import QuestionPool
from gcattn.data.words.ordinary_words import ADJECTIVES, NOUNS
from gcattn.data.words.texts import Texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SENTENCE_ENDS = (".", "!", "?", '."', '!"', '?"', ".”", "!”", "?”")
# tokens looked at for the end of a sentence
_SENTENCE_REACH = 256


class RulerSource:
    """Tokenizer, haystack and words of RULER samples.

    Args:
        tokenizer: The model's.
        haystack: Text of the tasks that hide needles in prose.
        pools: Questions of `qa_1` and `qa_2` with their documents; generated ones by default.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        haystack: Haystack,
        pools: dict[str, QuestionPool] | None = None,
    ) -> None:
        self.haystack = haystack
        self.pools = dict(pools or {})
        self.texts = Texts("validation")
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        # special tokens spelled out in a text stay plain characters
        self._backend.encode_special_tokens = True

    def encode(self, text: str) -> TokenIds:
        """Return the ids of a text."""
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_all(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids of many texts, on all cores."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [tuple(encoding.ids) for encoding in encodings]

    def words(self, rng: Random) -> Iterator[str]:
        """Yield different words without end: ordinary ones first, then invented ones."""
        ordinary = [*ADJECTIVES, *NOUNS]
        rng.shuffle(ordinary)
        yield from ordinary
        seen = set(ordinary)
        while True:
            word = self.texts.draw(rng, "made-up")[0].split()[0].lower()
            if word not in seen:
                seen.add(word)
                yield word

    @cached_property
    def _ends(self) -> np.ndarray:
        ids = range(self._backend.get_vocab_size())
        ends = [i for i in ids if self._backend.decode([i]).rstrip().endswith(_SENTENCE_ENDS)]
        return np.array(ends, dtype=np.int64)

    def sentence_end(self, start: int, gap: int, num_text: int) -> int:
        """Return the gap after the next end of a sentence, at most `num_text`.

        Args:
            start: Where in the haystack the text begins.
            gap: Haystack tokens before.
            num_text: Haystack tokens of the whole text.
        """
        if gap >= num_text:
            return num_text
        ahead = self.haystack.read(start + gap, min(_SENTENCE_REACH, num_text - gap))
        found = np.isin(ahead, self._ends).nonzero()[0]
        return gap + int(found[0]) + 1 if len(found) else gap


def whole(parts: Iterable[TokenIds]) -> np.ndarray:
    """Join ids, as few bytes as they need."""
    return np.fromiter((token for part in parts for token in part), dtype=np.int32)
