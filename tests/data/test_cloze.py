"""Claims about the task `cloze`: what people have written, asked for by its own words."""

import numpy as np
import pytest
from natural_exercises import asked, exercises, read

from gcattn.data import TokenShards, TokenShardWriter
from gcattn.data.needle_tasks import Haystack

PROSE = (
    "The lighthouse keeper had counted the ships for thirty years. In 1874 he moved to Bergen with "
    "his daughter Ingrid Halvorsen. She opened a bakery beside the harbour, and it was known for "
    "its cinnamon bread. The mayor praised the bakery in a speech about honest work. Nobody "
    "remembered that the bread had once been baked for sailors from Portugal. "
)
SENTENCES = [f"{sentence.strip('. ')}." for sentence in PROSE.split(". ") if sentence.strip()]


def haystack_of(text, tokenizer, folder):
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
    with TokenShardWriter(folder, tokenizer, "test") as writer:
        writer.append(ids, len(text))
    return Haystack(TokenShards(folder))


@pytest.fixture(scope="module")
def haystack(tokenizer, tmp_path_factory):
    return haystack_of(PROSE * 20, tokenizer, tmp_path_factory.mktemp("prose") / "shards")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_sentence_of_the_text_answers_a_question_in_its_words(tokenizer, haystack, split):
    answers = set()
    for words, exercise in exercises(tokenizer, haystack, split, "cloze:2", 60):
        assert len(exercise.questions) == (2 if split == "train" else 1)
        for question in exercise.questions:
            needle = exercise.needles[question.evidence[0]]
            sentence, answer = read(words, needle.token_ids), read(words, question.answer)
            assert sentence in SENTENCES
            assert answer == read(words, needle.token_ids[needle.start : needle.stop])
            put = asked(words, question)
            shared = [w for w in put.split()[1:] if len(w) > 3 and w in sentence]
            assert len(shared) >= 2
            assert not set(answer.lower().split()) & set(put.lower().split()[1:])
            answers.add(answer)
    assert {"1874", "Bergen", "Ingrid Halvorsen"} <= answers
    # no name is cut, and a capital alone makes none
    assert not {"Ingrid", "Halvorsen", "The", "Nobody"} & answers


def test_a_text_without_sentences_is_asked_about_too(tokenizer, tmp_path):
    other = haystack_of(
        "alpha = compute(width, height) # marker\n" * 200, tokenizer, tmp_path / "s"
    )
    for words, exercise in exercises(tokenizer, other, "train", "cloze:1", 5):
        needle = exercise.needles[0]
        answer = read(words, exercise.questions[0].answer)
        assert answer == read(words, needle.token_ids[needle.start : needle.stop])


def test_a_text_without_words_is_refused(tokenizer, tmp_path):
    other = haystack_of("-- " * 400, tokenizer, tmp_path / "shards")
    with pytest.raises(ValueError, match="holds no words to ask about"):
        next(exercises(tokenizer, other, "train", "cloze:2", 1))
