"""The synthetic long-range corpus: documents whose later parts repeat facts of earlier ones.

Made by this code alone, so that training and experiments run with no data at hand. Every document
mixes paragraphs of unpredictable facts (descriptions, records, codes), their verbatim recalls much
later, and filler that a small model soon predicts; loss on the recalled spans falls only if the
model looks far back.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from gcattn.data.synthetic_facts import (
    Fact,
    draw_code,
    draw_description,
    draw_record,
    names_of_split,
)
from gcattn.data.words.corpus_words import ITEMS, SCENE_WORDS, SCENES
from gcattn.data.words.split import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MIN_DOCUMENT_TOKENS = 512
# no more than this passes between two chances to recall a fact: a paragraph and filler
_STEP_TOKENS = 200
# room for the longest statement, filler and recall
_RECALL_ROOM = 240
_DESCRIPTION_SHARE = 0.8
_RECORD_SHARE = 0.75
# of recalled facts, those that may be recalled once more
_AGAIN_SHARE = 0.5
# of facts, stated or recalled, that are followed by a paragraph of filler
_FILLER_SHARE = 0.3
_CLOSING_WORDS = ("and", "so", "it", "went", "on")


@dataclass(frozen=True)
class RecallSpan:
    """Characters [start, end) of a document that repeat those last said at `source`."""

    start: int
    end: int
    source: int


@dataclass(frozen=True)
class SyntheticDocument:
    """A document and the spans of it that repeat an earlier fact."""

    text: str
    recall_spans: tuple[RecallSpan, ...]


def synthetic_documents(
    num_documents: int,
    document_tokens: int,
    seed: int,
    split: Split = "train",
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    recall_distance: tuple[int, int] | None = None,
) -> Iterator[SyntheticDocument]:
    """Yield documents of exactly `document_tokens` tokens, end-of-text token included.

    Document i depends on `seed`, `split` and i alone. The names and codes of the two splits are
    disjoint, so validation can't be answered from what training taught about a name.

    Args:
        num_documents: How many documents.
        document_tokens: Length of every document, at least 512.
        seed: Fixes every document.
        split: "train" or "validation".
        tokenizer: Counts the tokens; None is the shipped one.
        recall_distance: Least and most tokens between the end of a fact's statement and the start
            of its recall; None is from a third of the document up to all of it.

    Raises:
        ValueError: An argument is out of range.
    """
    low, high = recall_distance or (document_tokens // 3, document_tokens)
    if num_documents < 1:
        raise ValueError(f"num_documents must be at least 1, got {num_documents}.")
    if document_tokens < MIN_DOCUMENT_TOKENS:
        raise ValueError(
            f"document_tokens must be at least {MIN_DOCUMENT_TOKENS}, got {document_tokens}."
        )
    if not 0 <= low <= document_tokens - _RECALL_ROOM or high < low + _STEP_TOKENS:
        raise ValueError(
            f"recall_distance must have 0 <= least <= {document_tokens - _RECALL_ROOM} "
            f"(document_tokens - {_RECALL_ROOM}) and most >= least + {_STEP_TOKENS}, "
            f"got {(low, high)}."
        )
    if tokenizer is None:
        from gcattn.data.tokenizer_loading import load_tokenizer

        tokenizer = load_tokenizer()
    backend = tokenizer.backend_tokenizer
    count = functools.lru_cache(maxsize=2**16)(
        lambda text: len(backend.encode(text, add_special_tokens=False).ids)
    )
    names = names_of_split(split)
    for index in range(num_documents):
        rng = Random(f"{seed} {split} {index}")
        # the end-of-text token takes the last place
        yield _compose(rng, names, split, document_tokens - 1, (low, high), count)


def _compose(
    rng: Random,
    names: list[str],
    split: Split,
    num_tokens: int,
    distance: tuple[int, int],
    count: Callable[[str], int],
) -> SyntheticDocument:
    """Lay statements, recalls and filler one after another until the document is full."""
    page = _Page(count)
    unused_names = rng.sample(names, min(len(names), num_tokens // _RECALL_ROOM * 10 + 10))
    unused_items = rng.sample(ITEMS, len(ITEMS))
    stated: list[_Statement] = []
    while True:
        now = page.num_tokens
        stated = [fact for fact in stated if now - fact.end <= distance[1]]
        due = [fact for fact in stated if now - fact.end >= distance[0]]
        urgent = [fact for fact in due if now - fact.end > distance[1] - _STEP_TOKENS]
        room = num_tokens - now
        may_state = bool(unused_names) and room >= distance[0] + _RECALL_ROOM
        if may_state and not urgent and (not due or rng.random() < 0.5):
            if unused_items and rng.random() < _DESCRIPTION_SHARE:
                fact = draw_description(rng, unused_items.pop())
            else:
                fact = _draw_fact(rng, unused_names.pop(), split)
            stated.append(page.state(fact))
        elif due:
            chosen = rng.choice(urgent or due)
            stated.remove(chosen)
            if count(chosen.fact.recall) + 1 > room:
                break
            mention = page.recall(chosen)
            if rng.random() < _AGAIN_SHARE:
                stated.append(mention)
        if rng.random() < _FILLER_SHARE:
            filler = _draw_filler(rng)
            if count(filler) + 1 > num_tokens - page.num_tokens:
                break
            page.add(filler)
    page.fill(num_tokens)
    return SyntheticDocument("\n".join(page.paragraphs), tuple(page.recall_spans))


def _draw_fact(rng: Random, name: str, split: Split) -> Fact:
    if rng.random() < _RECORD_SHARE:
        return draw_record(rng, name)
    return draw_code(rng, name, split)


def _draw_filler(rng: Random) -> str:
    words = {kind: rng.choice(choices) for kind, choices in SCENE_WORDS.items()}
    return " ".join(rng.choice(SCENES)).format(**words)


@dataclass(frozen=True)
class _Statement:
    """The last mention of a fact: the character where its body starts, the token after its end."""

    fact: Fact
    source: int
    end: int


class _Page:
    """Paragraphs so far and their length in characters and tokens (a line break is one token)."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self.paragraphs: list[str] = []
        self.recall_spans: list[RecallSpan] = []
        self.num_tokens = 0
        self._num_characters = 0
        self._count = count

    def add(self, paragraph: str) -> None:
        line_break = 1 if self.paragraphs else 0
        self.paragraphs.append(paragraph)
        self.num_tokens += self._count(paragraph) + line_break
        self._num_characters += len(paragraph) + line_break

    def state(self, fact: Fact) -> _Statement:
        self.add(fact.statement)
        return _Statement(fact, self._num_characters - len(fact.body), self.num_tokens)

    def recall(self, last: _Statement) -> _Statement:
        """Repeat a fact; what was last said of it is now this recall."""
        self.add(last.fact.recall)
        start = self._num_characters - len(last.fact.body)
        self.recall_spans.append(RecallSpan(start, self._num_characters, last.source))
        return _Statement(last.fact, start, self.num_tokens)

    def fill(self, num_tokens: int) -> None:
        """Lengthen the page to exactly `num_tokens` with a last paragraph of one-token words."""
        missing = num_tokens - self._count("\n".join(self.paragraphs))
        if missing:
            self.paragraphs.append(
                " ".join(itertools.islice(itertools.cycle(_CLOSING_WORDS), missing - 1))
            )
