"""Exact answers, ROUGE of summaries, and the table of models: what is counted, and that it is."""

from types import SimpleNamespace

import pytest
from needle_oracle import Oracle

from gcattn.data import load_tokenizer
from gcattn.data.examples.encoding import encode_example, plain_backend
from gcattn.data.examples.example import Example, question_turn, summary_turn
from gcattn.evals import questions, summaries
from gcattn.evals.cell_store import CellStore
from gcattn.evals.questions import evaluate_questions
from gcattn.evals.summaries import ROUGE, WrittenSummary, evaluate_summaries
from gcattn.evals.summary_table import summary_table

DOCUMENT = "Ann lives in Rome. Bob is a cook. It rains. " * 6


@pytest.fixture(scope="module")
def example():
    turns = (question_turn("Where does Ann live?", "Rome"), question_turn("Who cooks?", "Bob"))
    return Example("file, line 1", DOCUMENT, turns, cuts=False)


@pytest.fixture(scope="module")
def oracle(example):
    """Return a model that says these lines."""
    tokenizer = load_tokenizer()
    backend = plain_backend(tokenizer)

    def make(*lines):
        turns = encode_example(backend, example, None).turns
        said = [backend.encode(line, add_special_tokens=False).ids for line in lines]
        return Oracle(
            [
                SimpleNamespace(prompt=turn.prompt, answer=tuple(ids))
                for turn, ids in zip(turns, said, strict=True)
            ]
        )

    return make


def ask(model, example, **options):
    return evaluate_questions(model, load_tokenizer(), [example], segment_length=37, **options)


def test_the_line_that_is_written_must_be_the_answer(oracle, example):
    right = ask(oracle(" Rome\nand so on", " Bob \n"), example)
    assert [answer.exact for answer in right] == [True, True]
    assert [answer.question for answer in right] == ["Where does Ann live?", "Who cooks?"]
    wrong = ask(oracle(" Rome, Italy\n", "\n Bob\n"), example)
    assert [answer.generated for answer in wrong] == ["Rome, Italy", ""]
    report = questions.metrics([*right, *wrong])
    assert (report["exact"], report["trials"], report["documents"]) == (2, 4, 1)
    assert report["interval"][0] < 0.5 < report["interval"][1]


def test_questions_side_by_side_are_answered_as_alone(models, example):
    both = ask(models["drt"], example, most_new_tokens=6)
    for number, turn in enumerate(example.turns):
        alone = Example(example.place, example.document, (turn,), cuts=False)
        (answer,) = ask(models["drt"], alone, most_new_tokens=6)
        assert answer == both[number]
    llama = ask(models["llama"], example, most_new_tokens=3)
    assert len(llama) == 2


def test_finished_documents_are_not_asked_again(oracle, example, tmp_path):
    store = CellStore(tmp_path / "cells", {})
    first = ask(oracle(" Rome\n", " Bob\n"), example, store=store)
    assert ask(None, example, store=store) == first


@pytest.fixture(scope="module")
def documents():
    return [
        Example(f"row {n}", DOCUMENT * 3, (summary_turn("Ann lives in Rome."),), cuts=True)
        for n in range(2)
    ]


def test_summaries_are_written_by_beams_from_documents_cut_to_the_length(models, documents):
    written = evaluate_summaries(
        models["drt"],
        load_tokenizer(),
        documents[:1],
        most_tokens=60,
        most_new_tokens=4,
        num_beams=2,
    )
    assert written[0].num_tokens == 60
    assert written[0].is_cut
    assert set(written[0].scores) == set(ROUGE)
    assert written[0].lead_scores["rouge1"] > 0.5


def test_a_summary_repeats_no_ngram_and_may_quote_the_document(models, documents):
    def write(size):
        (summary,) = evaluate_summaries(
            models["drt"],
            load_tokenizer(),
            documents[:1],
            most_tokens=60,
            most_new_tokens=24,
            num_beams=2,
            no_repeat_ngram_size=size,
        )
        ids = load_tokenizer()(summary.text)["input_ids"]
        return [tuple(ids[i : i + 2]) for i in range(len(ids) - 1)]

    pairs = write(2)
    assert len(set(pairs)) == len(pairs) > 0
    assert pairs != write(0)


@pytest.mark.parametrize("name", ["drt", "llama"])
def test_documents_summarized_side_by_side_are_summarized_as_alone(models, name, tmp_path):
    examples = [
        Example(f"row {n}", DOCUMENT * n, (summary_turn("Ann lives in Rome."),), cuts=True)
        for n in (3, 1, 2)
    ]

    def write(batch_size, store=None):
        return evaluate_summaries(
            models[name],
            load_tokenizer(),
            examples,
            most_tokens=200,
            most_new_tokens=5,
            num_beams=2,
            batch_size=batch_size,
            store=store,
        )

    store = CellStore(tmp_path / "cells", {})
    assert write(2, store) == write(1)
    assert write(1, store) == write(3)


def test_rouge_is_that_of_the_package_and_means_have_intervals(documents):
    scorer = summaries._scorer()
    scores = summaries._rouge(scorer, "the cats sat down", "a cat sat")
    # stems count: cat and sat of four and three words
    assert scores["rouge1"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    written = [
        WrittenSummary("row", "r", "t", {name: value for name in ROUGE}, scores, 10, False)
        for value in (0.2, 0.4, 0.6)
    ]
    found = summaries.metrics(written, seed=0)
    assert found["scores"]["rouge1"]["mean"] == pytest.approx(40)
    assert found["scores"]["rouge1"]["low"] < 40 < found["scores"]["rouge1"]["high"]
    assert found == summaries.metrics(written, seed=0)


def result(label, data, mean):
    score = {"mean": mean, "low": mean - 1, "high": mean + 1}
    metrics = {"scores": {n: score for n in ROUGE}, "lead_scores": {n: score for n in ROUGE}}
    return {"name": label, "config": {"label": label, "data_label": data}, "metrics": metrics}


def test_the_table_has_a_row_for_each_model_and_the_best_in_bold():
    table = summary_table(
        [result("Base LM", "XSum", 20.0), result("DRT", "XSum", 21.5), result("DRT", "CNN", 30.0)]
    )
    lines = table.splitlines()
    assert lines[0] == ("| model | XSum R-1 | XSum R-2 | XSum R-L | CNN R-1 | CNN R-2 | CNN R-L |")
    assert lines[2].startswith("| lead 3 |")
    assert lines[3].startswith("| Base LM | 20.00 ± 1.00 |") and lines[3].endswith("|  |  |  |")
    assert lines[4].startswith("| DRT | **21.50** ± 1.00 |")
    with pytest.raises(ValueError, match="Two results are of 'DRT'"):
        summary_table([result("DRT", "XSum", 1.0), result("DRT", "XSum", 2.0)])
    with pytest.raises(ValueError, match="is no result of gcattn eval summarization"):
        summary_table([{"name": "x", "config": {}, "metrics": {}}])
