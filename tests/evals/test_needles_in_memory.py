"""A context is read once into a memory, and each question is asked of it on its own."""

import json

import numpy as np
import pytest

from gcattn import open_memory
from gcattn.data import load_tokenizer
from gcattn.data.needle_tasks import (
    Haystack,
    NeedleTask,
    NeedleVocabulary,
    draw_sharing_samples,
)
from gcattn.evals import needles_in_memory
from gcattn.evals.cells import CellRun
from gcattn.evals.needles_in_memory import SECONDS_FILE, evaluate_needles_in_memory
from processes import run_together

DEPTHS = [0.0, 0.5, 1.0]
SINGLE, VALUES = NeedleTask("single"), NeedleTask("multi-value", 2)


@pytest.fixture(scope="module")
def words():
    return NeedleVocabulary(load_tokenizer(), "validation")


@pytest.fixture
def draw(shards, words):
    def draw(task=SINGLE, length=600, num_samples=2):
        return draw_sharing_samples(
            task,
            Haystack(shards),
            words,
            length=length,
            seed=0,
            depths=DEPTHS,
            num_samples=num_samples,
        )

    return draw


@pytest.fixture
def evaluate(shards, words, models, tmp_path):
    def evaluate(rank=0, *, seed=0, tasks=(SINGLE,), tier=None, **options):
        cells = evaluate_needles_in_memory(
            models["drt"],
            Haystack(shards),
            words,
            tasks,
            [400],
            DEPTHS,
            CellRun(num_samples=2, segment_length=64, seed=seed, **options),
            folder=tmp_path / "memories",
            tier=tier,
        )
        return [
            (c.depth, [(a.generated, a.retrieved, a.failure) for a in c.answers]) for c in cells
        ]

    return evaluate


@pytest.mark.parametrize("task", [SINGLE, VALUES])
def test_samples_of_one_context_find_their_own_answers_in_it(task, draw):
    samples = draw(task)
    context = samples[0].context
    text = context.tokens(0, context.num_tokens)
    assert len(samples) == 6 and all(sample.context is context for sample in samples)
    assert len({sample.questions[0].prompt for sample in samples}) == 6
    for sample in samples:
        (question,) = sample.questions
        stated = np.concatenate([text[place] for place in sample.evidence(question)])
        assert set(stated.tolist()) <= set(question.answer)
        assert 0 <= 600 - sample.num_tokens < 128


def test_the_first_needle_of_each_answer_lies_at_its_depth(draw):
    samples = draw()
    places = [sample.evidence(sample.questions[0])[0].start for sample in samples]
    length = samples[0].context.num_tokens
    shares = np.array(places).reshape(3, 2) / length
    assert np.allclose(shares.mean(1), DEPTHS, atol=0.15)


def test_needles_of_one_depth_are_not_side_by_side(draw):
    samples = draw()
    starts = sorted(sample.evidence(sample.questions[0])[0].start for sample in samples)
    longest = max(len(sample.exercise.needles[0].token_ids) for sample in samples)
    assert min(np.diff(starts)) > longest


def test_more_samples_than_fit_are_refused(draw):
    with pytest.raises(ValueError, match=r"60 samples of 'single' in one context need a length of"):
        draw(num_samples=20)


def test_a_memory_is_read_once_and_asked_again(evaluate, tmp_path, monkeypatch):
    progress = []
    first = evaluate(on_progress=lambda done, total: progress.append((done, total)))
    assert [depth for depth, _ in first] == DEPTHS and progress[-1][1] == 400
    place = tmp_path / "memories" / "single_400"
    seconds = json.loads((place / SECONDS_FILE).read_text(encoding="utf-8"))
    assert seconds > 0

    monkeypatch.setattr("gcattn.library.id_streams.begin_block", None)  # so reading would fail
    assert evaluate() == first
    assert json.loads((place / SECONDS_FILE).read_text(encoding="utf-8")) == seconds


@pytest.mark.parametrize("tier", ["disk", "host-int8"])
def test_keys_and_values_are_kept_for_tiers_that_read_them(tier, evaluate, tmp_path):
    assert len(evaluate(tier=tier)) == 3
    assert open_memory(tmp_path / "memories" / "single_400").description.keys_values


def test_a_chunk_counts_as_retrieved_if_it_holds_the_answer(evaluate, monkeypatch):
    asked = []
    ask = needles_in_memory.ask_samples

    def watched(model, reader, samples, *arguments, **options):
        answers = ask(model, reader, samples, *arguments, **options)
        places = samples[0].evidence(samples[0].questions[0])
        size = model.config.chunk_size - 1
        needed = {p // size for place in places for p in place}
        asked.append((needed <= reader.retrieved[0], answers[0].retrieved))
        return answers

    monkeypatch.setattr(needles_in_memory, "ask_samples", watched)
    evaluate(tasks=(SINGLE, VALUES))
    assert len(asked) == 12 and all(found == told for found, told in asked)


def test_another_text_in_the_folder_is_refused(evaluate):
    evaluate()
    with pytest.raises(ValueError, match="holds a memory of 'single, 400 tokens, seed 0"):
        evaluate(seed=1)


def test_two_processes_read_together_and_the_first_asks(evaluate, tmp_path):
    # one folder after the other, with the same answers
    alone = evaluate()
    (tmp_path / "memories").rename(tmp_path / "alone")
    assert run_together(2, evaluate) == [alone, []]
