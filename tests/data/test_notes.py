"""Claims about the task `notes`: short sentences about any things, asked about as people ask."""

import re

import numpy as np
import pytest
from natural_exercises import asked, exercises, read

from gcattn.data import TokenShards, TokenShardWriter
from gcattn.data.needle_tasks import Haystack
from gcattn.data.needle_tasks.note_frames import EVALUATION_FRAMES, TRAINING_FRAMES
from gcattn.data.needle_tasks.notes import _VALUES
from gcattn.data.words.templates import word_runs

RUN = 4


@pytest.fixture(scope="module")
def haystack(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notes") / "shards"
    text = "The lighthouse keeper counted vessels and painted lanterns. " * 20
    with TokenShardWriter(folder, tokenizer, "test") as writer:
        writer.append(np.array(tokenizer(text, add_special_tokens=False)["input_ids"]), len(text))
    return Haystack(TokenShards(folder))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_note_holds_the_answer_and_words_of_the_question(tokenizer, haystack, split):
    for words, exercise in exercises(tokenizer, haystack, split, "notes:3", 200):
        assert len(exercise.needles) == 3
        assert len(exercise.questions) == (3 if split == "train" else 1)
        notes = [read(words, needle.token_ids) for needle in exercise.needles]
        for question in exercise.questions:
            needle, answer = exercise.needles[question.evidence[0]], read(words, question.answer)
            assert answer == read(words, needle.token_ids[needle.start : needle.stop])
            put, note = asked(words, question), notes[question.evidence[0]]
            assert not {"{", "}", "|"} & set(put + "".join(notes))
            assert put[0].isupper()
            shared = set(re.findall(r"\w{4,}", put)) & set(re.findall(r"\w{4,}", note))
            assert shared and answer not in put


def test_notes_of_a_thing_are_told_once(tokenizer, haystack):
    for words, exercise in exercises(tokenizer, haystack, "validation", "notes:3", 200):
        notes = [read(words, needle.token_ids) for needle in exercise.needles]
        assert len(set(notes)) == len(notes)


def test_there_are_things_for_any_number_of_notes(tokenizer, haystack):
    (_, exercise), *_ = exercises(tokenizer, haystack, "validation", "notes:1000", 1)
    assert len(exercise.needles) == 1000


def test_every_frame_can_be_filled_and_asks_for_a_kind_of_value():
    for kind, statements, questions in (*TRAINING_FRAMES, *EVALUATION_FRAMES):
        assert kind in _VALUES
        for statement in statements.split("|"):
            assert statement.count("{value}") == 1 and statement[-1] == "."
        for question in questions.split("|"):
            assert "{value}" not in question and "{A}" not in question and question[-1] == "?"


def test_no_run_of_words_of_evaluation_is_in_training():
    def runs(frames):
        texts = [t for _, said, asked in frames for t in (*said.split("|"), *asked.split("|"))]
        return set().union(*(word_runs(text, RUN) for text in texts))

    assert runs(EVALUATION_FRAMES) and not runs(EVALUATION_FRAMES) & runs(TRAINING_FRAMES)


def test_things_of_evaluation_are_not_those_of_training(tokenizer, haystack):
    told = {
        split: {
            read(words, needle.token_ids)
            for words, exercise in exercises(tokenizer, haystack, split, "notes:3", 200)
            for needle in exercise.needles
        }
        for split in ("train", "validation")
    }
    assert not told["train"] & told["validation"]
