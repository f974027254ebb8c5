"""Claims about the task `notes`: short sentences about any things, asked about as people ask."""

import re
from random import Random

import numpy as np
import pytest
from natural_exercises import asked, exercises, read

from gcattn.data import TokenShards, TokenShardWriter
from gcattn.data.needle_tasks import Haystack, NeedleVocabulary
from gcattn.data.needle_tasks.note_frames import frames_of, kind_of, places_in
from gcattn.data.needle_tasks.note_values import KINDS, Source
from gcattn.data.needle_tasks.notes import _write
from gcattn.data.words.templates import word_runs

RUN = 4
SPLITS = ("train", "validation")


@pytest.fixture(scope="module")
def haystack(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notes") / "shards"
    text = "The lighthouse keeper counted vessels and painted lanterns. " * 20
    with TokenShardWriter(folder, tokenizer, "test") as writer:
        writer.append(np.array(tokenizer(text, add_special_tokens=False)["input_ids"]), len(text))
    return Haystack(TokenShards(folder))


@pytest.mark.parametrize("split", SPLITS)
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
            telling = r"\w{4,}|[A-Z]\w+"
            shared = set(re.findall(telling, put)) & set(re.findall(telling, note))
            assert shared and answer not in put


def test_notes_of_a_thing_are_told_once(tokenizer, haystack):
    for words, exercise in exercises(tokenizer, haystack, "validation", "notes:3", 200):
        notes = [read(words, needle.token_ids) for needle in exercise.needles]
        assert len(set(notes)) == len(notes)


def test_there_are_things_for_any_number_of_notes(tokenizer, haystack):
    (_, exercise), *_ = exercises(tokenizer, haystack, "validation", "notes:1000", 1)
    assert len(exercise.needles) == 1000


@pytest.mark.parametrize("split", SPLITS)
def test_every_statement_is_filled_and_its_answer_is_the_marked_span(tokenizer, haystack, split):
    words, rng = NeedleVocabulary(tokenizer, split), Random(0)
    for frame in frames_of(split):
        for statement in frame.statements:
            one = frame._replace(statements=(statement,))
            note = _write(rng, Source(rng, words, haystack), one, "- ", 0.0)
            answer = note.text[note.start : note.stop]
            assert answer and note.text.count(answer) == 1 and answer not in note.question
            assert not {"{", "}"} & set(note.text + note.question)
            ids, start, stop = words.encode_part(note.text, note.start, note.stop)
            assert read(words, ids[start:stop]) == answer


@pytest.mark.parametrize("split", SPLITS)
def test_questions_of_a_frame_name_what_every_statement_of_it_says(split):
    for place, statements, questions in frames_of(split):
        for statement in statements:
            said = places_in(statement.replace("{A}", "{a}"))
            assert said.count(place) == 1 and {kind_of(x) for x in said if x != "a"} <= set(KINDS)
            for question in questions:
                named = set(places_in(question))
                assert named and named <= set(said) - {place} and question[-1] in "?."
        assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_of_value_is_asked_for(split):
    assert {kind_of(frame.place) for frame in frames_of(split)} == set(KINDS)


def test_there_are_hundreds_of_frames():
    assert len(frames_of("train")) >= 320 and len(frames_of("validation")) >= 30


def test_no_run_of_words_of_evaluation_is_in_training():
    train, validation = (
        {
            run
            for frame in frames_of(split)
            for text in (*frame.statements, *frame.questions)
            for run in word_runs(text, RUN)
        }
        for split in SPLITS
    )
    assert validation and not validation & train


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
