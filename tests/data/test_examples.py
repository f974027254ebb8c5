"""Examples: read from any schema, encoded as they are asked, with labels on answers alone."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from gcattn.chunking import prompt_breaks
from gcattn.chunking.labels import IGNORED
from gcattn.data import TokenShards, load_tokenizer
from gcattn.data.answer_rows import AnswerRows
from gcattn.data.examples import prepare_examples, read_questions, read_summaries
from gcattn.data.examples.encoding import TooLongError, encode_example, plain_backend
from gcattn.data.examples.example import SUMMARY_PROMPT, question_prompt

QUESTIONS = [
    {"document": "Ann lives in Rome.\nBob is a cook.", "question": "Where?", "answer": "Rome"},
    {"document": "Ann lives in Rome.\nBob is a cook.", "question": "Who cooks?", "answer": "Bob"},
    {"document": "It rained.", "question": "What did it do?", "answer": "rain"},
]


@pytest.fixture(scope="module")
def backend():
    return plain_backend(load_tokenizer())


def write_jsonl(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


@pytest.fixture
def questions(tmp_path):
    return write_jsonl(tmp_path / "questions.jsonl", QUESTIONS)


def test_rows_with_one_document_are_one_example(questions, tmp_path):
    first, second = read_questions(questions)
    assert [turn.answer for turn in first.turns] == [" Rome\n", " Bob\n"]
    assert (second.document, len(second.turns)) == ("It rained.", 1)
    listed = [{"document": "D.", "questions": [{"question": "a?", "answer": "b"}] * 2}]
    (example,) = read_questions(write_jsonl(tmp_path / "listed.jsonl", listed))
    assert len(example.turns) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"document": "a", "question": "b"}, "line 1 has no column 'answer'"),
        ({"document": "", "question": "b", "answer": "c"}, "column 'document' must hold text"),
        ({"document": "a", "question": "b", "answer": 3}, "column 'answer' must hold text, got 3"),
        ({"document": "a", "question": "b", "answer": "c\nd"}, "an answer must be one line"),
        ({"document": "a", "questions": "b"}, "questions must be a list of objects"),
        (["a"], "expected a JSON object, got list"),
    ],
)
def test_a_row_that_cannot_be_taught_is_named(row, message, tmp_path):
    with pytest.raises(ValueError, match="line 1") as error:
        list(read_questions(write_jsonl(tmp_path / "bad.jsonl", [row])))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "row",
    [
        {"document": "A long text.", "summary": "Short.", "id": "29750031"},  # XSum
        {"article": "A long text.", "highlights": "Short.", "id": "42c027e4"},  # CNN/DailyMail
        {"id": "x", "title": "t", "text": "A long text.", "summary": "Short.", "queries": None},
    ],
    ids=["xsum", "cnn_dailymail", "text"],
)
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_summaries_of_every_schema_are_read(row, kind, tmp_path):
    file = tmp_path / f"test-00000.{kind}"
    if kind == "jsonl":
        write_jsonl(file, [row])
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    for source in (file, tmp_path):
        (example,) = read_summaries(str(source), split="test")
        assert example.document == "A long text."
        assert (example.turns[0].prompt, example.turns[0].answer) == (SUMMARY_PROMPT, " Short.")


def test_other_columns_are_named_and_missing_ones_refused(tmp_path):
    source = write_jsonl(tmp_path / "rows.jsonl", [{"body": "Text.", "abstract": "Short."}])
    (example,) = read_summaries(source, columns=("body", "abstract"))
    assert example.document == "Text."
    with pytest.raises(ValueError, match=r"has the columns body, abstract; expected document and"):
        list(read_summaries(source))
    with pytest.raises(ValueError, match="columns 'body' and 'gist' must hold text"):
        list(read_summaries(source, columns=("body", "gist")))


def test_rows_without_a_summary_are_left_out(tmp_path):
    rows = [{"text": "A.", "summary": None}, {"text": "B.", "summary": "b"}]
    assert len(list(read_summaries(write_jsonl(tmp_path / "rows.jsonl", rows)))) == 1


def test_what_is_taught_is_what_is_asked(questions, backend):
    example = next(read_questions(questions))
    encoded = encode_example(backend, example, None)
    asked = backend.encode(question_prompt("Where?"), add_special_tokens=False).ids
    assert list(encoded.turns[0].prompt) == asked
    ids, mask = encoded.token_ids(), encoded.answer_mask(with_end=False)
    assert backend.decode(ids.tolist()).count("Question:") == 2
    marked = [
        backend.decode(run.tolist())
        for run in np.split(ids, np.flatnonzero(np.diff(mask[:-1])) + 1)
    ]
    assert marked[1::2] == [" Rome\n", " Bob\n"]


def test_documents_of_summaries_lose_their_end_and_those_of_questions_are_refused(
    tmp_path, questions, backend
):
    row = {"text": "one two three " * 40, "summary": "Numbers."}
    (example,) = read_summaries(write_jsonl(tmp_path / "rows.jsonl", [row]))
    encoded = encode_example(backend, example, 50)
    assert (encoded.num_tokens, encoded.is_cut) == (50, True)
    whole = encode_example(backend, example, None)
    np.testing.assert_array_equal(encoded.document, whole.document[: len(encoded.document)])
    with pytest.raises(TooLongError, match="raise --sequence-length"):
        encode_example(backend, next(read_questions(questions)), 20)


@pytest.fixture
def shards(questions, tmp_path):
    return prepare_examples(read_questions(questions), tmp_path / "shards").shards


def test_rows_hold_every_example_once_apart_and_labelled_on_answers_alone(shards, backend):
    longest = int(np.diff(shards.document_starts).max())
    for length in (longest, shards.num_tokens + 7):
        rows = AnswerRows(shards, length)
        texts = []
        for number in range(len(rows)):
            row = rows[number]
            assert {x.shape for x in row.values()} == {(length,)}
            labelled = row["labels"] != IGNORED
            assert (row["labels"][labelled] == row["input_ids"][labelled]).all()
            texts.append(backend.decode(row["input_ids"][labelled].tolist()))
            # documents never touch each other's numbers
            assert (row["document_ids"].diff() >= 0).all()
        assert sorted("".join(texts).split()) == ["Bob", "Rome", "rain"]
    assert len(AnswerRows(shards, shards.num_tokens)) == 1


def test_chunks_close_where_the_prompt_closes_them_when_asked(shards, questions, backend):
    row = AnswerRows(shards, int(np.diff(shards.document_starts).max()))[0]
    example = encode_example(backend, next(read_questions(questions)), None)
    prompt = len(example.document) + len(example.turns[0].prompt)
    asked = prompt_breaks(torch.ones(1, prompt, dtype=torch.bool))[0]
    torch.testing.assert_close(row["chunk_breaks"][:prompt], asked)
    # and again for the second question, nowhere else
    assert int(row["chunk_breaks"].sum()) == 4


def test_a_summary_ends_with_the_text_and_an_answer_with_its_line(tmp_path, questions):
    rows = [{"text": "A long text. " * 9, "summary": "Short."}]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    summaries = prepare_examples(read_summaries(source), tmp_path / "summaries").shards
    assert summaries.answer_mask[-1] == 1
    asked = prepare_examples(read_questions(questions), tmp_path / "asked").shards
    ends = asked.document_starts[1:] - 1
    assert not asked.answer_mask[ends].any()


def test_shards_without_answers_or_with_long_examples_are_refused(shards, tmp_path):
    with pytest.raises(ValueError, match="rows have 10; raise"):
        AnswerRows(shards, 10)
    index = tmp_path / "shards/index.json"
    tree = json.loads(index.read_text()) | {"has_answer_mask": False}
    index.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match="has no answers marked"):
        AnswerRows(TokenShards(tmp_path / "shards", check=False), 100)
    # folders of older releases do not know the field
    del tree["has_answer_mask"]
    index.write_text(json.dumps(tree))
    assert TokenShards(tmp_path / "shards", check=False).answer_mask is None
