"""Needle samples: well-posed, fixed by their arguments, anywhere in a chunk, apart by split."""

from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from needle_corpus import write_haystack
from needle_solver import solve

from gcattn.data import TokenShards, load_tokenizer
from gcattn.data.needle_tasks import (
    TASK_NAMES,
    Haystack,
    NeedleTask,
    NeedleVocabulary,
    draw_sample,
)
from gcattn.data.needle_tasks.interleaved_text import InterleavedText
from gcattn.data.needle_tasks.vocabulary import split_of

SPLITS = ("train", "validation")
# the others are told in words of their own: test_worded_needles.py
PHRASED = [
    n for n in TASK_NAMES if not n.startswith(("worded", "people", "free", "cloze", "notes"))
]
MANY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def haystack(tmp_path_factory):
    return Haystack(TokenShards(write_haystack(tmp_path_factory.mktemp("haystack") / "shards")))


@pytest.fixture(scope="module")
def vocabularies(tokenizer):
    return {split: NeedleVocabulary(tokenizer, split) for split in SPLITS}


def tokens_of(sample):
    return sample.context.tokens(0, sample.context.num_tokens)


@pytest.mark.parametrize("name", PHRASED)
@pytest.mark.parametrize("split", SPLITS)
def test_a_plain_reader_answers_every_question(name, split, haystack, vocabularies):
    for index in range(12):
        sample = draw_sample(
            NeedleTask(name),
            haystack,
            vocabularies[split],
            length=2048,
            seed=7,
            index=index,
            depth=(None, 0.0, 0.4, 1.0)[index % 4],
        )
        stream = tokens_of(sample).tolist()
        for question in sample.questions:
            found = solve(stream, question.prompt, vocabularies[split])
            assert found[: len(question.answer)] == question.answer
            assert name == "self-copy" or len(found) == len(question.answer)
            stream += [*question.prompt, *question.answer, *question.closing]
        assert 2048 - 128 < sample.num_tokens <= 2048


@pytest.mark.parametrize("name", PHRASED)
def test_the_evidence_is_what_the_answer_repeats(name, haystack, vocabularies):
    sample = draw_sample(
        NeedleTask(name), haystack, vocabularies["validation"], length=2048, seed=1, index=0
    )
    stream = tokens_of(sample)
    joint = vocabularies["validation"].phrases.and_
    for question in sample.questions:
        parts = [tuple(stream[place.start : place.stop]) for place in sample.evidence(question)]
        repeated = parts[0]
        for part in parts[1:]:
            repeated += joint + part
        assert repeated == question.answer


@pytest.mark.parametrize("name", TASK_NAMES)
def test_arguments_fix_the_sample(name, haystack, vocabularies):
    def draw(**changes):
        arguments = {"length": 1500, "seed": 3, "index": 5, "depth": 0.5} | changes
        sample = draw_sample(NeedleTask(name), haystack, vocabularies["validation"], **arguments)
        return (*tokens_of(sample).tolist(), *sample.questions[0].prompt)

    assert draw() == draw()
    assert len({draw(), draw(seed=4), draw(index=6), draw(depth=0.6), draw(length=1600)}) == 5


@MANY
@given(
    name=st.sampled_from(TASK_NAMES),
    length=st.integers(900, 4000),
    depth=st.none() | st.floats(0, 1),
    index=st.integers(0, 10_000),
    segment_length=st.integers(1, 1500),
)
def test_segments_of_any_length_are_the_text(
    name, length, depth, index, segment_length, haystack, vocabularies
):
    sample = draw_sample(
        NeedleTask(name),
        haystack,
        vocabularies["validation"],
        length=length,
        seed=0,
        index=index,
        depth=depth,
    )
    whole = tokens_of(sample)
    segments = list(sample.context.segments(segment_length))
    assert all(len(segment) == segment_length for segment in segments[:-1])
    np.testing.assert_array_equal(np.concatenate(segments), whole)
    starts = sample.context.starts
    for start, needle in zip(starts, sample.exercise.needles, strict=True):
        assert tuple(whole[start : start + len(needle.token_ids)]) == needle.token_ids
    if depth is not None:
        before = sum(
            len(needle.token_ids)
            for start, needle in zip(starts, sample.exercise.needles, strict=True)
            if start < starts[0]
        )
        inserted = sum(len(needle.token_ids) for needle in sample.exercise.needles)
        num_text = len(whole) - inserted
        assert abs((starts[0] - before) - depth * num_text) <= 0.5


@MANY
@given(
    inserts=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=6),
    start=st.integers(0, 30_000),
    ends=st.tuples(st.integers(0, 110), st.integers(0, 110)),
)
def test_inserts_interrupt_the_haystack_and_nothing_is_lost(inserts, start, ends, haystack):
    pieces = [(gap, tuple(range(-1, -1 - length, -1))) for gap, length in inserts]
    text = InterleavedText(haystack, start, 50, pieces)
    plain = haystack.read(start, 50).tolist()
    expected = []
    for place in range(51):
        for gap, ids in pieces:
            if gap == place:
                expected += ids
        expected += plain[place : place + 1]
    begin, stop = sorted(min(end, text.num_tokens) for end in ends)
    assert text.num_tokens == len(expected)
    assert text.tokens(begin, stop).tolist() == expected[begin:stop]
    for (_, ids), place in zip(pieces, text.starts, strict=True):
        assert tuple(expected[place : place + len(ids)]) == ids


def test_the_haystack_goes_on_from_the_beginning(haystack):
    num_tokens = haystack.num_tokens
    twice = haystack.read(5, 2 * num_tokens)
    np.testing.assert_array_equal(twice[:num_tokens], twice[num_tokens:])
    np.testing.assert_array_equal(twice[: num_tokens - 5], haystack.shards.tokens(5, num_tokens))


@pytest.mark.parametrize("chunk", [15, 63])
def test_needles_and_questions_fall_on_every_slot(chunk, haystack, vocabularies):
    words = vocabularies["validation"]
    samples = [
        draw_sample(
            NeedleTask("single"), haystack, words, length=4096, seed=0, index=index, depth=0.5
        )
        for index in range(25 * chunk)
    ]
    needles = {sample.context.starts[0] % chunk for sample in samples}
    questions = {
        (sample.context.num_tokens + len(sample.questions[0].prompt)) % chunk for sample in samples
    }
    assert needles == questions == set(range(chunk))


def test_keys_values_and_numbers_of_the_splits_are_disjoint(vocabularies):
    rng = Random(0)
    drawn = {}
    for split, words in vocabularies.items():
        keys = set(words.draw_keys(rng, 3000))
        values = {words.draw_value(rng) for _ in range(1000)}
        numbers = {words.draw_number(rng) for _ in range(1000)}
        assert {split_of(ids) for ids in keys | values} == {split}
        assert all(len(key) == 2 for key in keys)
        assert all(len(value) == 5 for value in values)
        drawn[split] = keys | values | numbers
    assert drawn["train"] & drawn["validation"] == set()


def test_every_key_has_one_split_for_ever():
    # a change of these would mix the keys of models trained before with those asked of them
    held_out = [i for i in range(100, 112) if split_of((i, i + 1)) == "validation"]
    assert held_out == [104, 109]


def test_keys_and_values_come_from_most_of_the_vocabulary(vocabularies):
    tokenizer = load_tokenizer()
    words = NeedleVocabulary(tokenizer, "train", excluded_ids=[500, 501])
    assert len(words.ids) > 0.99 * len(tokenizer)
    held = {*tokenizer.all_special_ids, 500, 501} | words.phrases.token_ids()
    assert not held & set(words.ids)
    rng = Random(0)
    seen = {token for _ in range(4000) for token in words.draw_value(rng)}
    assert len(seen) > 0.6 * len(words.ids)  # 1 - exp(-20000 / 16344) = 0.71 expected


def test_numbers_have_seven_digits(vocabularies):
    tokenizer, rng = load_tokenizer(), Random(1)
    for words in vocabularies.values():
        text = tokenizer.decode(words.draw_number(rng))
        assert text.isdecimal()
        assert len(text) == 7
        assert tokenizer.decode(words.number_opening) == " "


def test_counts_set_the_size_of_a_task(haystack, vocabularies):
    rng, words = Random(0), vocabularies["train"]

    def draw(text):
        return NeedleTask.parse(text).draw(rng, words, haystack)

    assert len(draw("multi-key").needles) == 8
    assert len(draw("multi-key:12").needles) == 12
    assert len(draw("multi-query:3").questions) == 3
    assert len(draw("two-hop:10").needles) == 20
    assert len(draw("three-hop:2").needles) == 6
    assert len(draw("three-hop-direct:2").needles) == 6
    assert str(NeedleTask.parse(" two-hop:10 ")) == "two-hop:10"


def test_a_direct_link_says_the_next_key_behind_the_word_of_a_value(haystack, vocabularies):
    words = vocabularies["train"]
    say = words.phrases
    for name, verb in (("two-hop", say.is_ + say.the_secret_of), ("two-hop-direct", say.is_)):
        exercise = NeedleTask(name, 1).draw(Random(4), words, haystack)
        final, link = exercise.needles
        key = final.token_ids[len(say.secret_of) :][: words.key_tokens]
        assert link.token_ids[len(say.secret_of) + words.key_tokens :] == verb + key + say.end


@pytest.mark.parametrize("name", ["two-hop-varied", "three-hop-varied"])
def test_varied_links_have_every_number_of_the_words_between_keys(name, haystack, vocabularies):
    words = vocabularies["train"]
    say, opening = words.phrases, len(words.phrases.secret_of) + words.key_tokens
    found = set()
    for needle in NeedleTask(name, 40).draw(Random(4), words, haystack).needles:
        verb = needle.token_ids[opening : needle.start]
        assert verb[:1] == say.is_
        assert say.the_secret_of[len(say.the_secret_of) - len(verb[1:]) :] == verb[1:]
        if needle.stop - needle.start == words.key_tokens:
            found.add(len(verb[1:]))
    assert found == set(range(len(say.the_secret_of) + 1))


def test_a_sample_of_many_tokens_is_read_from_anywhere(haystack, vocabularies):
    sample = draw_sample(
        NeedleTask("single"),
        haystack,
        vocabularies["validation"],
        length=2**34,
        seed=0,
        index=0,
        depth=0.75,
    )
    start = sample.context.starts[0]
    (needle,) = sample.exercise.needles
    assert start == pytest.approx(0.75 * 2**34, rel=1e-6)
    assert tuple(sample.context.tokens(start, start + len(needle.token_ids))) == needle.token_ids


def test_no_more_than_a_segment_is_ever_read(haystack, vocabularies, monkeypatch):
    sizes = []
    real = Haystack.read

    def read(self, start, num_tokens):
        sizes.append(num_tokens)
        return real(self, start, num_tokens)

    monkeypatch.setattr(Haystack, "read", read)
    sample = draw_sample(
        NeedleTask("multi-key"), haystack, vocabularies["train"], length=2**20, seed=0, index=0
    )
    num_tokens = sum(len(segment) for segment in sample.context.segments(5000))
    assert num_tokens == sample.context.num_tokens > 2**20 - 300
    assert max(sizes) == 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("needle", "task must be one of single, number"),
        ("single:3", "has no count"),
        ("multi-key:0", "at least 1"),
        ("multi-key:x", "must look like"),
    ],
)
def test_unknown_tasks_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        NeedleTask.parse(text)


def test_a_length_without_room_is_refused(haystack, vocabularies):
    arguments = {"seed": 0, "index": 0}
    with pytest.raises(ValueError, match=r"'three-hop' needs a length of at least \d+ tokens"):
        draw_sample(
            NeedleTask("three-hop"), haystack, vocabularies["train"], length=200, **arguments
        )
    with pytest.raises(ValueError, match="depth must lie in"):
        draw_sample(
            NeedleTask("single"),
            haystack,
            vocabularies["train"],
            length=200,
            depth=1.5,
            **arguments,
        )


def test_a_bad_vocabulary_is_refused():
    tokenizer = load_tokenizer()
    with pytest.raises(ValueError, match="split must be one of"):
        NeedleVocabulary(tokenizer, "test")
    with pytest.raises(ValueError, match="at least 2"):
        NeedleVocabulary(tokenizer, "train", key_tokens=1)
    with pytest.raises(ValueError, match="tokens for keys and values"):
        NeedleVocabulary(tokenizer, "train", excluded_ids=range(16_350))
