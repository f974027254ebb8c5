"""Exact match, the lenient score beside it, and why a sample failed."""

import dataclasses

import numpy as np
import pytest
import torch
from needle_oracle import Oracle

from gcattn.chunking import plan_chunks, prompt_breaks
from gcattn.data import load_tokenizer
from gcattn.data.needle_tasks import (
    TASK_NAMES,
    Haystack,
    NeedleTask,
    NeedleVocabulary,
    draw_sample,
)
from gcattn.evals.needle_answer import answer_samples
from gcattn.evals.stream_reader import StreamReader


@pytest.fixture(scope="module")
def draw(shards):
    words = NeedleVocabulary(load_tokenizer(), "validation", excluded_ids=[2])

    def sample(task="single", *, length=700, index=0, depth=0.3):
        return draw_sample(
            NeedleTask.parse(task),
            Haystack(shards),
            words,
            length=length,
            seed=0,
            index=index,
            depth=depth,
        )

    return sample


def answer_sample(model, sample, index, *, segment_length):
    (answer,) = answer_samples(model, [sample], [index], segment_length=segment_length)
    return answer


def prompt_of(sample):
    """Return the whole context and the first question as one row."""
    context = torch.from_numpy(sample.context.tokens(0, sample.context.num_tokens))
    return torch.cat([context, torch.tensor(sample.questions[0].prompt)])[None]


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_model_that_knows_the_answers_scores_full(name, draw):
    sample = draw(name)
    answer = answer_sample(Oracle(sample.questions), sample, 5, segment_length=97)
    assert (answer.index, answer.exact, answer.failure) == (5, True, None)
    assert answer.first_tokens_right == answer.num_questions == len(sample.questions)
    assert answer.generated == answer.expected == [list(q.answer) for q in sample.questions]


@pytest.mark.parametrize("name", ["single", "number", "multi-value", "multi-query"])
def test_one_wrong_token_anywhere_is_no_exact_match(name, draw):
    sample = draw(name)
    for number, question in enumerate(sample.questions):
        for place in range(len(question.answer)):
            oracle = Oracle(sample.questions, [(number, place)])
            answer = answer_sample(oracle, sample, 0, segment_length=512)
            assert not answer.exact
            # the lenient score notices nothing but the first token
            assert answer.first_tokens_right == len(sample.questions) - (place == 0)
            wrong = [
                (n, i)
                for n, (a, b) in enumerate(zip(answer.generated, answer.expected, strict=True))
                for i in range(len(b))
                if a[i] != b[i]
            ]
            assert wrong == [(number, place)]


def test_later_questions_see_the_models_own_answers(draw):
    """Free running carries a mistake on; the teacher-forced score is given the truth."""
    sample = draw("multi-query")
    oracle = Oracle(sample.questions, [(0, 3)], needs_truth=True)
    answer = answer_sample(oracle, sample, 0, segment_length=512)
    assert answer.generated[0][:3] == answer.expected[0][:3]
    assert all(set(written) == {2} for written in answer.generated[1:])
    assert answer.first_tokens_right == 4


@pytest.mark.parametrize("kind", ["drt", "host", "llama"])
@pytest.mark.parametrize("segment_length", [pytest.param(1, marks=pytest.mark.slow), 50, 1000])
def test_the_answer_is_what_generate_writes(kind, segment_length, draw, models, make_drt):
    model = make_drt(memory_tier="host") if kind == "host" else models[kind]
    sample = draw(length=250)
    answer = answer_sample(model, sample, 0, segment_length=segment_length)
    prompt = prompt_of(sample)
    num_tokens = len(sample.questions[0].answer)
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=num_tokens, do_sample=False
    )
    assert answer.generated == [expected[0, prompt.shape[1] :].tolist()]
    assert not answer.exact
    if kind == "llama":
        assert answer.retrieved is answer.memory_bytes is None
        assert answer.failure == "no_retrieval"
    else:
        assert (answer.memory_bytes["host"] > 0) == (kind == "host")


@pytest.mark.parametrize("serves", ["next_chunk", "from_landmark"])
@pytest.mark.parametrize("index", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_retrieved_chunks_are_those_of_one_forward_call(serves, index, draw, make_drt):
    model = make_drt(retrieval_serves=serves)
    sample = draw(length=300, index=index)
    reader = StreamReader(model)
    for segment in sample.context.segments(40):
        reader.read([segment])
    reader.ask([np.array(sample.questions[0].prompt)])
    prompt = prompt_of(sample)
    breaks = prompt_breaks(torch.ones_like(prompt, dtype=torch.bool))
    with torch.no_grad():
        whole = model(prompt, chunk_breaks=breaks, output_retrieval=True)
    assert len(whole.retrieval) == 2
    expected = {int(i) for group in whole.retrieval for i in group.indices[0, -1]}
    assert reader.retrieved == [expected]


def test_later_tokens_are_served_by_the_chunks_that_close_meanwhile(draw, make_drt):
    model = make_drt()
    sample = draw(length=300)
    reader = StreamReader(model)
    for segment in sample.context.segments(64):
        reader.read([segment])
    token = reader.ask([np.array(sample.questions[0].prompt)])
    seen = [reader.retrieved[0]]
    for _ in range(8):
        token = reader.feed(token.tolist())
        seen.append(reader.retrieved[0])
    # the prompt's last token and five more fill a chunk of six: the next retrieval takes over
    assert seen[0] == seen[4] != seen[5]
    assert seen[5] == seen[8]


@pytest.mark.slow
def test_failures_say_whether_the_chunk_was_there(draw, make_drt):
    everything = make_drt(retrieval_top_k=10_000)
    few = make_drt(retrieval_top_k=1, retrieval_method="random")
    none = make_drt(retrieval_method="none")
    for index in range(4):
        sample = draw(length=400, index=index)
        answer = answer_sample(everything, sample, index, segment_length=128)
        assert (answer.retrieved, answer.failure) == (True, "right_chunk_wrong_token")
        torch.manual_seed(index)
        answer = answer_sample(few, sample, index, segment_length=128)
        # a value of five tokens in two chunks of six, or one of 60 chunks: luck alone finds it
        assert (answer.retrieved, answer.failure) == (False, "wrong_chunk")
        answer = answer_sample(none, sample, index, segment_length=128)
        assert (answer.retrieved, answer.failure) == (None, "no_retrieval")


def test_the_chunks_of_an_answer_are_those_of_the_layout(draw, models):
    from gcattn.evals.needle_answer import _chunks_of

    model = models["drt"]
    for task in ("single", "multi-value", "variables"):
        for index in range(5):
            sample = draw(task, index=index)
            tokens = sample.context.num_tokens
            layout, _ = plan_chunks(1, tokens, model.config.chunk_size)
            chunk = layout.columns.chunk[0, layout.column_of_token[0]]
            question = sample.questions[0]
            places = [p for place in sample.evidence(question) for p in place]
            asking = (tokens + len(question.prompt) - 2) // (model.config.chunk_size - 1)
            expected = {int(chunk[p]) for p in places} - {asking}
            assert _chunks_of(model, sample, 0, in_memory=False) == expected != set()


def test_what_the_asking_chunk_holds_need_not_be_retrieved(draw, make_drt):
    """With a wide chunk, a needle right in front of the question is in the chunk that asks."""
    model = make_drt(chunk_size=128, window_size=256)
    inside = []
    for index in range(12):
        sample = draw(length=400, index=index, depth=1.0)
        asking = (sample.context.num_tokens + len(sample.questions[0].prompt) - 2) // 127
        if sample.evidence(sample.questions[0])[0].start // 127 == asking:
            inside.append(answer_sample(model, sample, index, segment_length=128).retrieved)
    assert inside
    assert all(inside)


@pytest.mark.parametrize("task", ["single", "multi-value", "multi-query:3", "self-copy"])
@pytest.mark.parametrize("segment_length", [pytest.param(45, marks=pytest.mark.slow), 1000])
def test_samples_side_by_side_are_samples_alone(task, segment_length, draw, make_drt):
    model = make_drt().double()
    samples = [draw(task, length=480, index=index, depth=0.4 * index) for index in range(3)]
    assert len({sample.num_tokens for sample in samples}) > 1
    options = {"segment_length": segment_length}
    together = answer_samples(model, samples, range(3), **options)
    for index, answer in enumerate(together):
        alone = answer_sample(model, samples[index], index, **options)
        changes = {
            "prefill_seconds": 0,
            "answer_seconds": 0,
            "memory_bytes": {"device": 0},
        }
        assert dataclasses.replace(answer, **changes) == dataclasses.replace(alone, **changes)
        # a row is padded to the longest of the batch
        assert answer.memory_bytes["device"] == pytest.approx(alone.memory_bytes["device"], rel=0.2)


def test_rows_of_unequal_answers_end_where_they_should(draw, make_drt):
    """The rows that are done read nothing while the others go on."""
    samples = [draw("self-copy:3"), draw("self-copy:9"), draw("self-copy:5")]
    together = answer_samples(make_drt().double(), samples, range(3), segment_length=300)
    assert [len(answer.generated[0]) for answer in together] == [3, 9, 5]
    for sample, answer in zip(samples, together, strict=True):
        alone = answer_sample(make_drt().double(), sample, 0, segment_length=300)
        assert (answer.generated, answer.retrieved) == (alone.generated, alone.retrieved)


def test_other_models_take_one_sample_at_a_time(draw, models):
    samples = [draw(length=250, index=index) for index in range(3)]
    with pytest.raises(ValueError, match="one sample at a time"):
        answer_samples(models["llama"], samples, range(3), segment_length=100)
