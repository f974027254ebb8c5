"""Questions with documents for `qa_1` and `qa_2`: local files, or stories made up on the spot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from gcattn.data.stories.story import StoryQuestion, ask, draw_people, link, tell
from gcattn.data.words.split import Split
from gcattn.data.words.texts import Texts

_NUM_PEOPLE = 600
_SPLIT: Split = "validation"


@dataclass(frozen=True)
class PoolQuestion:
    """A question, every wording of its answer, and the documents that hold it, by number."""

    question: str
    answers: tuple[str, ...]
    documents: tuple[int, ...]


@dataclass(frozen=True)
class QuestionPool:
    """Documents, and questions that some of them answer.

    Attributes:
        name: What it was made of.
        documents: All documents, every one a distractor of the others' questions.
        questions: At least one.
    """

    name: str
    documents: tuple[str, ...]
    questions: tuple[PoolQuestion, ...]


def read_squad(file: Path) -> QuestionPool:
    """Read questions of SQuAD's format; what no paragraph answers is left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not of this format, or holds no answerable question.
    """

    def read(tree: Any) -> tuple[list[str], list[PoolQuestion]]:
        documents: dict[str, int] = {}
        questions = []
        for article in tree["data"]:
            for paragraph in article["paragraphs"]:
                number = documents.setdefault(paragraph["context"], len(documents))
                for asked in paragraph["qas"]:
                    answers = tuple(dict.fromkeys(a["text"] for a in asked["answers"]))
                    if answers and not asked.get("is_impossible", False):
                        questions.append(PoolQuestion(asked["question"], answers, (number,)))
        return list(documents), questions

    return _read(file, "SQuAD", read)


def read_hotpotqa(file: Path) -> QuestionPool:
    """Read questions of HotpotQA's distractor format.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not of this format, or holds no question.
    """

    def read(tree: Any) -> tuple[list[str], list[PoolQuestion]]:
        documents: dict[str, int] = {}
        questions = []
        for asked in tree:
            needed = {title for title, _ in asked["supporting_facts"]}
            numbers = []
            for title, sentences in asked["context"]:
                text = f"{title}\n{''.join(sentences)}"
                number = documents.setdefault(text, len(documents))
                if title in needed:
                    numbers.append(number)
            questions.append(PoolQuestion(asked["question"], (asked["answer"],), tuple(numbers)))
        return list(documents), questions

    return _read(file, "HotpotQA", read)


def generated_pool(seed: int, *, hops: int) -> QuestionPool:
    """Make up documents about people and questions about one (`hops` 1) or two of them (2)."""
    rng, texts = Random(f"{seed} ruler {hops}"), Texts(_SPLIT)
    people = draw_people(rng, texts, _NUM_PEOPLE, set())
    asked: list[tuple[StoryQuestion, tuple[int, ...]]] = []
    if hops == 1:
        asked = [(ask(rng, person, _SPLIT), (i,)) for i, person in enumerate(people)]
    else:
        # one half knows the other
        half = _NUM_PEOPLE // 2
        for number in range(half):
            people[number], question = link(rng, people[number], people[half + number], _SPLIT)
            asked.append((question, (number, half + number)))
    return QuestionPool(
        "made-up stories",
        tuple(tell(rng, person, _SPLIT) for person in people),
        tuple(PoolQuestion(q.question, (q.answer,), places) for q, places in asked),
    )


def _read(file: Path, what: str, read: Any) -> QuestionPool:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        documents, questions = read(tree)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is not of {what}'s format: {type(error).__name__}: {str(error)[:120]}."
        ) from error
    if not questions:
        raise ValueError(f"{file} holds no question that its documents answer.")
    return QuestionPool(file.name, tuple(documents), tuple(questions))
