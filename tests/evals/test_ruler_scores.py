"""RULER's scores: substrings of what was written, and two stricter counts beside them."""

from types import SimpleNamespace

import pytest
from needle_oracle import Oracle

from gcattn.data import load_tokenizer
from gcattn.data.needle_tasks import Haystack
from gcattn.data.ruler import RulerSource, draw_ruler_sample
from gcattn.data.ruler.sample import FixedText, RulerSample
from gcattn.evals.cell_store import CellStore
from gcattn.evals.cells import CellRun
from gcattn.evals.ruler import evaluate_ruler, string_match
from gcattn.evals.ruler_report import metrics


@pytest.fixture(scope="module")
def source(shards):
    return RulerSource(load_tokenizer(), Haystack(shards))


def sample_of(references, needs="all"):
    return RulerSample(FixedText([]), (1, 2), references, needs, 8)


@pytest.mark.parametrize(
    ("text", "references", "needs", "score"),
    [
        ("the answer is 4821", ("4821",), "all", 1.0),
        ("BLUE and red", ("blue", "green"), "all", 0.5),
        ("blue", ("blue", "green"), "any", 1.0),
        ("nothing", ("blue",), "any", 0.0),
    ],
)
def test_the_score_is_the_share_of_references_that_are_found(text, references, needs, score):
    assert string_match(text, sample_of(references, needs)) == score


def oracle(source, samples, say):
    """Return a model that answers each sample with what `say` makes of its references."""
    end = load_tokenizer().eos_token_id
    questions = [
        SimpleNamespace(prompt=s.prompt, answer=(*source.encode(say(s.references)), end))
        for s in samples
    ]
    return Oracle(questions)


def evaluate(model, source, tasks=("niah_multivalue", "vt"), **options):
    run = CellRun(**{"num_samples": 2, "segment_length": 300} | options)
    return evaluate_ruler(model, load_tokenizer(), source, tasks, [1000], run)


def samples(source, tasks=("niah_multivalue", "vt")):
    return [
        draw_ruler_sample(task, source, length=1000, seed=0, index=i)
        for task in tasks
        for i in range(2)
    ]


def test_a_model_that_knows_the_answers_scores_full(source):
    model = oracle(source, samples(source), lambda references: f" {', '.join(references)}.")
    for cell in evaluate(model, source):
        assert [answer.score for answer in cell.answers] == [1.0, 1.0]
        assert all(answer.all_found and answer.begins_right for answer in cell.answers)


def test_half_of_the_references_are_half_of_the_score_and_not_found(source):
    known = samples(source, ["niah_multivalue"])
    model = oracle(source, known, lambda references: f" well: {' '.join(references[:2])}")
    (cell,) = evaluate(model, source, ["niah_multivalue"])
    report = metrics([cell])["cells"][0]
    assert (report["score"], report["all_found"], report["begins_right"]) == (0.5, 0, 0)
    assert report["interval"][0] < 0.5 < report["interval"][1]
    assert len(metrics([cell])["failed_samples"]) == 2


@pytest.mark.slow
def test_batches_and_segments_change_no_answer(source, models):
    def texts(**options):
        cells = evaluate(models["drt"], source, ["vt"], **options)
        return [answer.text for cell in cells for answer in cell.answers]

    assert texts() == texts(batch_size=2) == texts(segment_length=77)


def test_finished_cells_are_not_evaluated_again(source, tmp_path):
    model = oracle(source, samples(source), lambda references: " ".join(references))
    store = CellStore(tmp_path / "cells", {})
    first = evaluate(model, source, store=store)
    again = evaluate(None, source, store=store)
    assert again == first
