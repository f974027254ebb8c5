"""Rows read as a library: files with facts, then conversations with the questions."""

from random import Random

import pytest
import torch
from needle_corpus import write_haystack
from needle_solver import find, solve

from gcattn.data import TokenShards
from gcattn.data.needle_tasks import NeedlePlan, NeedleRows, NeedleVocabulary
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.library_text import library_text
from gcattn.data.needle_tasks.tasks import NeedleTask

T = 8192


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return TokenShards(write_haystack(tmp_path_factory.mktemp("haystack") / "shards"))


@pytest.fixture(scope="module")
def words(tokenizer):
    return NeedleVocabulary(tokenizer, "train")


def library_rows(shards, length=T, rate=1.0, mixture=None, **knobs):
    plan = NeedlePlan(mixture=mixture or {"single": 1}, **{"exercises_per_row": 24} | knobs)
    return NeedleRows(shards, length, plan, library_rate=rate, include_answer_mask=True)


def documents_of(row):
    """Ids and answer mask of each document."""
    sizes = row["document_ids"].unique_consecutive(return_counts=True)[1].tolist()
    return list(
        zip(row["input_ids"].split(sizes), row["answer_mask"].bool().split(sizes), strict=True)
    )


def test_facts_stand_in_files_and_questions_in_conversations_after_them(shards, words):
    say, sizes, first_words = words.phrases, [], 0
    for index in range(4):
        documents = documents_of(library_rows(shards)[index])
        is_asked = [bool(answers.any()) for _, answers in documents]
        assert is_asked == sorted(is_asked) and 2 < sum(is_asked) < len(documents)
        for (ids, _), asked in zip(documents, is_asked, strict=True):
            ids = ids.tolist()
            assert (find(ids, say.what_is_secret_of) >= 0) == asked
            if not asked:
                sizes.append(len(ids))
                first_words += find(ids[: len(say.secret_of)], say.secret_of) == 0
    assert sum(200 <= size <= 1200 for size in sizes) > 0.5 * len(sizes)
    assert max(sizes) > 1500 and first_words > 0.2 * len(sizes)


@pytest.mark.parametrize("name", ["single", "two-hop-direct", "multi-query", "self-copy"])
def test_every_answer_follows_from_the_files(name, shards, words):
    rows = library_rows(shards, 2048, mixture={name: 1}, exercises_per_row=6)
    say, num_answers = words.phrases, 0
    openings = [say.what_is_final_secret_of, say.what_is_secret_of, say.what_are_secrets_of]
    for index in range(3):
        row = rows[index]
        ids, answers = row["input_ids"].tolist(), row["answer_mask"]
        begins = (answers.diff() == 1).nonzero().flatten() + 1
        files = sum(len(x) for x, asked in documents_of(row) if not asked.any())
        for start in begins.tolist():
            opening = start - 16
            if name != "self-copy":
                opening = max(
                    place
                    for words_ in openings
                    for place in range(max(start - 40, 0), start)
                    if find(ids[place : place + len(words_)], words_) == 0
                )
            found = solve(ids[:files], ids[opening:start], words)
            stop = start + int(answers[start:].long().cumprod(0).sum())
            assert found[: stop - start] == tuple(ids[start:stop])
            num_answers += 1
    assert num_answers > 6


def test_a_conversation_begins_with_a_question_or_with_a_stretch_of_text(shards, words):
    asks, before = words.phrases.what_is_secret_of, []
    for index in range(8):
        documents = documents_of(library_rows(shards)[index])
        before += [find(ids.tolist(), asks) for ids, answers in documents if answers.any()]
    assert min(before) == 0 and max(before) > 400 and max(before) <= 600
    assert 100 < sum(before) / len(before) < 400


def test_no_break_of_a_question_reaches_the_document_before(shards):
    rows = library_rows(shards, question_break_rate=1.0)
    for index in range(4):
        row = rows[index]
        files = sum(len(ids) for ids, answers in documents_of(row) if not answers.any())
        assert row["chunk_breaks"][files:].any() and not row["chunk_breaks"][:files].any()


def test_rows_of_text_alone_are_files_and_keep_all_their_labels(shards):
    row = library_rows(shards, mixture={"text": 1e9, "single": 1}, text_loss_share=0.1)[0]
    assert len(documents_of(row)) > 2 and not row["answer_mask"].any()
    assert torch.equal(row["labels"], row["input_ids"])


def test_a_row_without_room_for_text_has_a_file_of_facts_and_a_conversation(shards, words):
    haystack = Haystack(shards)
    exercise = NeedleTask.parse("single").draw_within(Random(0), words, haystack, T)
    text, inserts = library_text(Random(0), [exercise], haystack, 0)
    assert text.num_tokens == exercise.num_tokens
    begins = [s for i, s in zip(inserts, text.starts, strict=True) if i.begins_document]
    assert begins == [0, sum(len(needle.token_ids) for needle in exercise.needles)]


def test_the_rate_says_how_many_rows_are_read_as_a_library(shards):
    rows = library_rows(shards, 512, rate=0.3, exercises_per_row=1)
    assert 20 < sum(len(documents_of(rows[index])) > 1 for index in range(100)) < 40


def test_pieces_of_a_row_are_libraries_of_their_own(shards):
    rows, short = (library_rows(shards, n, exercises_per_row=2) for n in (2048, 512))
    row = rows[3, 512]
    for piece in range(4):
        for name, x in row.items():
            assert torch.equal(x.view(4, -1)[piece], short[4 * 3 + piece][name])


def test_an_impossible_rate_is_refused(shards):
    with pytest.raises(ValueError, match=r"library_rate must lie in \[0, 1\], got 1.5"):
        library_rows(shards, rate=1.5)
