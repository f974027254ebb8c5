"""Files of stories with questions, as `gcattn finetune questions` and its evaluation read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import get_args

from gcattn.data.documents import read_documents
from gcattn.data.examples.encoding import plain_backend
from gcattn.data.stories.story import draw_story, scenes
from gcattn.data.tokenizer_loading import load_tokenizer
from gcattn.data.words.split import Split
from gcattn.data.words.texts import Texts
from gcattn.storage.whole import new_file


def write_stories(
    file: str | Path,
    num_stories: int,
    num_tokens: int,
    *,
    num_questions: int = 4,
    split: Split = "train",
    seed: int = 0,
    filler: str | None = None,
    filler_split: str | None = None,
    tokenizer: str | Path | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write stories, one a line: "document" and "questions" with "question", "answer", "relations".

    Args:
        file: A .jsonl file; it appears whole or not at all.
        num_stories: How many.
        num_tokens: Length of each story at most, without the questions.
        num_questions: Questions about each.
        split: "train" or "validation": whose names, numbers and wordings; they are disjoint.
        seed: Fixes all stories.
        filler: Source of other text between the facts, a paragraph a line; None: synthetic scenes.
        filler_split: Split of that source.
        tokenizer: Counts the tokens; None is the shipped one.
        overwrite: Replace `file`.
        on_progress: Called with the numbers of stories and tokens so far.

    Raises:
        FileExistsError: `file` exists and `overwrite` is off.
        ValueError: An argument is out of range, or the questions do not fit.
    """
    file = Path(file)
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {get_args(Split)}, got {split!r}.")
    if min(num_stories, num_tokens, num_questions) < 1:
        raise ValueError(
            "num_stories, num_tokens and num_questions must be at least 1, got "
            f"{num_stories}, {num_tokens} and {num_questions}."
        )
    if file.suffix != ".jsonl":
        raise ValueError(f"Stories are written as .jsonl, got {file}.")
    if file.exists() and not overwrite:
        raise FileExistsError(f"{file} exists; pass --overwrite or choose another --out.")
    backend = plain_backend(load_tokenizer(tokenizer))
    texts, read = Texts(split), None
    if filler is not None:
        read = _paragraphs(filler, filler_split)

    def count(paragraph: str) -> int:
        # and its line break
        return len(backend.encode(paragraph, add_special_tokens=False).ids) + 1

    written = 0
    with new_file(file) as stream:
        for number in range(num_stories):
            rng = Random(f"{seed} {split} {number}")
            story = draw_story(
                rng, texts, num_tokens, num_questions, filler=read or scenes(rng), count=count
            )
            asked = [
                {"question": q.question, "answer": q.answer, "relations": list(q.relations)}
                for q in story.questions
            ]
            row = {"document": story.text, "questions": asked}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            if on_progress is not None:
                written += count(story.text)
                on_progress(number + 1, written)
    return file


def _paragraphs(source: str, split: str | None) -> Iterator[str]:
    """Yield the paragraphs of a source over and over.

    Raises:
        ValueError: It holds none.
    """
    while True:
        is_empty = True
        for document in read_documents(source, split=split):
            for line in document.split("\n"):
                if line.strip():
                    is_empty = False
                    yield line.strip()
        if is_empty:
            raise ValueError(f"{source} holds no text to put between the facts.")
