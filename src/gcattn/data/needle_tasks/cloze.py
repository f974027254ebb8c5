"""Cloze: a sentence of the corpus is hidden, and a part of it is asked for by its other words.

No list of wordings and no key: whatever people have written is stated and asked, and what finds the
sentence is that question and sentence have some words in common, as they do when a person asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Literal

from gcattn.data.needle_tasks.exercise import Exercise, Needle
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.natural_question import natural_question
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary

_Kind = Literal["number", "name", "words"]
# tokens that are read at once, and places tried for a sentence
_PASSAGE = 200
_TRIES = 50
# words of a sentence, and letters of one that tells what it is about
_LENGTHS = range(6, 41)
_TELLING = 4
_FEWEST_TELLING = 2
_BOUNDARY = re.compile(r"(?<=[.!?])[^\w\s]*\s+")
# beside these stands what can be asked for where it is neither a number nor a name
_LINKS = frozenset(
    (
        *("a", "an", "the", "of", "in", "by", "at", "to", "from", "with", "for", "on", "into"),
        *("under", "over", "between", "about", "like", "as", "and", "or", "but", "than"),
        *("is", "was", "are", "were", "be", "been", "has", "had", "have"),
    )
)
# long, and yet they tell nothing
_COMMON = _LINKS | frozenset(
    (
        *("that", "this", "these", "those", "they", "them", "their", "there", "then", "when"),
        *("where", "which", "what", "whom", "whose", "while", "would", "could", "should", "might"),
        *("must", "will", "shall", "very", "much", "more", "most", "some", "such", "only", "also"),
        *("even", "well", "upon", "just", "being", "does", "done", "made", "make", "said", "says"),
        *("each", "other", "another", "because", "before", "after", "again", "still", "here"),
        *("both", "either", "neither", "ever", "never", "always", "often"),
    )
)
# marks around a word
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
# formulas have no words to ask with
_FORMULA = re.compile(r"[\\$]")
_NAME_SHARE = 0.75
_LONGEST_PART = 4
# shares of words that a question keeps: of telling ones, and of the others
_KEPT = (0.6, 1.0)
_KEPT_OTHERS = (0.2, 0.8)
# of questions: the words behind the part come first, as in an active question about a passive
_TURNED_SHARE = 0.3
# of telling words, those whose ending is another one than the sentence's
_BENT_SHARE = 0.1
_ASKING: dict[_Kind, tuple[str, ...]] = {
    "number": ("How many", "How much", "When", "In which year", "Which", "What"),
    "name": ("Who", "Where", "Whom", "Which", "What", "By whom", "Of whom", "To whom", "In which"),
    "words": ("What", "Which", "How", "Where", "Why", "What kind of", "To what", "Of what"),
}
_HELPING = ("is", "was", "are", "were", "did", "does", "has", "had", "will", "can", "the", "of")
_HELPING_SHARE = 0.6


@dataclass(frozen=True)
class _Part:
    """Words [first, stop) of a sentence, which without the marks around are [start, end) of it."""

    kind: _Kind
    first: int
    stop: int
    start: int
    end: int


def cloze(rng: Random, words: NeedleVocabulary, haystack: Haystack, count: int) -> Exercise:
    """`count` sentences of the text; a part of one is asked for, in training of each.

    Raises:
        ValueError: No sentence is found in the text.
    """
    groups, questions = [], []
    for number in range(count):
        sentence, part = _draw(rng, words, haystack)
        ids, start, stop = words.encode_part(f"\n{sentence}\n", 1 + part.start, 1 + part.end)
        groups.append((Needle(ids, start, stop),))
        if number == 0 or words.split == "train":
            asked, answer = _question(rng, sentence, part), sentence[part.start : part.end]
            questions.append(natural_question(words, asked, answer, number))
    return Exercise(tuple(groups), tuple(questions))


def _draw(rng: Random, words: NeedleVocabulary, haystack: Haystack) -> tuple[str, _Part]:
    """Draw a sentence that has a part to ask for, and the part; words in a row from other text."""
    for tried in range(_TRIES):
        ids = haystack.read(rng.randrange(haystack.num_tokens), _PASSAGE).tolist()
        passage = " ".join(words.decode(ids).split())
        is_prose = tried < _TRIES // 2
        # the first and the last are cut
        sentences = _BOUNDARY.split(passage)[1:-1] if is_prose else [_stretch(rng, passage)]
        rng.shuffle(sentences)
        for sentence in sentences:
            if is_prose and _FORMULA.search(sentence):
                continue
            if len(sentence.split()) in _LENGTHS and (parts := _parts(sentence, is_prose)):
                named = [part for part in parts if part.kind != "words"]
                return sentence, rng.choice(
                    named if named and rng.random() < _NAME_SHARE else parts
                )
    raise ValueError(
        f"{haystack.shards.folder} holds no words to ask about; prepare documents of prose."
    )


def _stretch(rng: Random, passage: str) -> str:
    words = passage.split()
    length = rng.choice(_LENGTHS)
    start = rng.randint(0, max(len(words) - length, 0))
    return " ".join(words[start : start + length])


def _parts(sentence: str, is_prose: bool) -> list[_Part]:
    """Return the parts that can be asked for: the others tell enough, and do not say it too.

    Where it is no prose, any word can.
    """
    words = list(re.finditer(r"\S+", sentence))
    plain = [_bare(word.group()) for word in words]
    parts = []
    for first in range(len(words)):
        for stop in range(first + 1, min(first + _LONGEST_PART, len(words)) + 1):
            inside = plain[first:stop]
            written = [word.group() for word in words[first:stop]]
            if not all(inside) or any(not word[-1].isalnum() for word in written[:-1]):
                continue
            is_closed = not written[-1][-1].isalnum() or stop == len(words)
            is_closed = is_closed or plain[stop].lower() in _LINKS
            kind = _kind(plain, first, stop, is_closed)
            if kind is None and not is_prose and len(inside) == 1:
                kind = "words"
            if kind is None:
                continue
            others = [word.lower() for word in plain[:first] + plain[stop:]]
            telling = [word for word in others if _is_telling(word)]
            if len(telling) < _FEWEST_TELLING or any(word.lower() in others for word in inside):
                continue
            start = words[first].start() + written[0].index(inside[0])
            end = words[stop - 1].start() + written[-1].rindex(inside[-1]) + len(inside[-1])
            parts.append(_Part(kind, first, stop, start, end))
    return parts


def _kind(plain: list[str], first: int, stop: int, is_closed: bool) -> _Kind | None:
    """Return what kind of part some words are, None where a part would be cut or tell nothing."""
    inside = plain[first:stop]
    if len(inside) == 1 and inside[0].isdigit():
        return "number"
    is_name = [word[:1].isupper() and len(word) > 1 for word in plain]
    # the first word of a sentence has a capital whatever it is
    if first and all(is_name[first:stop]):
        is_whole = not (first > 1 and is_name[first - 1]) and not any(is_name[stop : stop + 1])
        return "name" if is_whole else None
    follows_link = first > 0 and plain[first - 1].lower() in _LINKS
    is_phrase = follows_link and is_closed and all(map(_is_telling, inside))
    return "words" if is_phrase else None


def _bare(word: str) -> str:
    return _EDGES.sub("", word)


def _is_telling(word: str) -> bool:
    return len(word) >= _TELLING and word.lower() not in _COMMON


def _question(rng: Random, sentence: str, part: _Part) -> str:
    """Ask for a part with some of the other words."""
    words = [_bare(word) for word in sentence.split()]
    shares = rng.uniform(*_KEPT), rng.uniform(*_KEPT_OTHERS)
    places = [*range(part.first), *range(part.stop, len(words))]
    telling = [place for place in places if _is_telling(words[place])]
    sure = set(rng.sample(telling, _FEWEST_TELLING))
    kept = [
        place
        for place in places
        if place in sure or rng.random() < shares[0 if place in telling else 1]
    ]
    if rng.random() < _TURNED_SHARE:
        kept.sort(key=lambda place: (place < part.first, place))
    asked = [rng.choice(_ASKING[part.kind])]
    if rng.random() < _HELPING_SHARE:
        asked.append(rng.choice(_HELPING))
    for place in kept:
        word = words[place]
        bends = place not in sure and place in telling and rng.random() < _BENT_SHARE
        asked.append(word[:-1] if bends else word)
    return " ".join(filter(None, asked)) + "?"
