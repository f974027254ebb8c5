"""Needles in anybody's words: readable, apart by split, of every kind, at any alignment."""

import re
from random import Random

import numpy as np
import pytest
from needle_corpus import write_haystack

from gcattn.data import TokenShards, TokenShardWriter, load_tokenizer
from gcattn.data.needle_tasks import (
    TASK_NAMES,
    Haystack,
    NeedlePlan,
    NeedleRows,
    NeedleTask,
    NeedleVocabulary,
    draw_sample,
)
from gcattn.data.needle_tasks.free_wordings import FreeWordings
from gcattn.data.needle_tasks.wordings import SHARED_WORDS, wordings_of
from gcattn.data.words.split import split_of_text
from gcattn.data.words.templates import fill, joined, word_runs
from gcattn.data.words.texts import KINDS, Texts

WORDED = [name for name in TASK_NAMES if name.startswith("worded")]
FREE = [name for name in TASK_NAMES if name.startswith("free")]
SPLITS = ("train", "validation")


@pytest.fixture(scope="module")
def haystack(tmp_path_factory):
    return Haystack(
        TokenShards(write_haystack(tmp_path_factory.mktemp("haystack") / "shards", 6_000))
    )


@pytest.fixture(scope="module")
def vocabularies(tokenizer):
    return {split: NeedleVocabulary(tokenizer, split) for split in SPLITS}


def values_of(text, statement, key):
    """Return every value that a text states of a key in the words of a statement."""
    front, _, behind = statement.partition("{value}")
    front, behind = fill(front, key=key), fill(behind, key=key)
    # a full stop between two digits is the point of a number
    opening = "\n" if statement.startswith("{") else ""
    pattern = (
        opening + re.escape(front) + "(.+?)" + (re.escape(behind) or "\n") + r"(?!(?<=\d\.)\d)"
    )
    return [match[1] for match in re.finditer(pattern, text)]


def matched(form, prompt):
    """Return what stands in the places of a form, None if the prompt is not of it."""
    pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(form))
    names = set()

    def once(match):
        name = match[1]
        again = f"(?P={name})" if name in names else match[0]
        names.add(name)
        return again

    found = re.fullmatch(re.sub(r"\(\?P<(\w+)>\.\+\?\)", once, pattern), prompt)
    return found.groupdict() if found else None


def solve(text, prompt, wordings):
    """Answer a question from a text by rule, knowing the wordings and nothing else."""
    answers = set()
    for wording in wordings.statements:
        for form in wording.questions:
            if place := matched(form, prompt):
                answers |= set(values_of(text, wording.statement, place["key"]))
        for form in wordings.value_lists:
            place = matched(form, prompt)
            if place and wording.noun in (place.get("noun"), place.get("nouns", "")[:-1]):
                values = values_of(text, wording.statement, place["key"])
                answers |= {joined(values)} if values else set()
        for form in wordings.key_lists:
            place = matched(form, prompt)
            if place is None:
                continue
            nouns = (place.get("noun", wording.noun), place.get("nouns", wording.noun + "s")[:-1])
            if wording.noun in nouns:
                keys = re.split(r", and |, | and ", place["keys"])
                values = [v for key in keys for v in values_of(text, wording.statement, key)]
                answers |= {joined(values)} if len(values) == len(keys) else set()
    for form in wordings.assignments:
        if place := matched(form.question, prompt):
            value = fill(form.value, value=place["value"])
            names = re.findall(re.escape(value).replace(r"\{name\}", r"([\w-]+)") + r"(?!\d)", text)
            while names:
                copied = re.escape(fill(form.copy, other=names[-1]))
                more = re.findall(copied.replace(r"\{name\}", r"([\w-]+)") + r"(?![\w-])", text)
                if not more or more[0] in names:
                    break
                names.append(more[0])
            answers |= {joined(names)} if names else set()
    return answers


@pytest.mark.parametrize("name", WORDED)
@pytest.mark.parametrize("split", SPLITS)
def test_a_plain_reader_answers_every_question(name, split, haystack, vocabularies, tokenizer):
    decode = tokenizer.backend_tokenizer.decode
    for index in range(8):
        sample = draw_sample(
            NeedleTask(name), haystack, vocabularies[split], length=1500, seed=7, index=index
        )
        stream = sample.context.tokens(0, sample.context.num_tokens).tolist()
        for question in sample.questions:
            prompt = decode(list(question.prompt)).strip()
            prompt = prompt.removeprefix("Question: ").removesuffix("\nAnswer:")
            answer = decode(list(question.answer)).strip()
            assert solve(decode(stream), prompt, wordings_of(split)) == {answer}, prompt
            # the answer is what follows the prompt, and ends where its tokens end
            assert decode([*question.prompt, *question.answer]).endswith(f" {answer}")
        assert 1500 - 128 < sample.num_tokens <= 1500


@pytest.mark.parametrize("name", [*WORDED, *FREE])
def test_the_evidence_is_what_the_answer_repeats(name, haystack, vocabularies, tokenizer):
    decode = tokenizer.backend_tokenizer.decode
    for index in range(8):
        sample = draw_sample(
            NeedleTask(name), haystack, vocabularies["train"], length=1500, seed=1, index=index
        )
        stream = sample.context.tokens(0, sample.context.num_tokens).tolist()
        for question in sample.questions:
            parts = [decode(stream[p.start : p.stop]).strip() for p in sample.evidence(question)]
            # one token can hold the mark beside a value too
            for part, said in zip(
                parts,
                re.split(r", and |, | and ", decode(list(question.answer)).strip()),
                strict=True,
            ):
                assert said in part


@pytest.mark.parametrize("kind", ["multi-key", "variables", "people"])
def test_training_asks_about_several_keys_and_evaluation_about_one(kind, haystack, vocabularies):
    for name in (f"free-{kind}", "people" if kind == "people" else f"worded-{kind}"):
        for split, most in (
            ("train", {"multi-key": 4, "variables": 2, "people": 4}[kind]),
            ("validation", 1),
        ):
            drawn = [
                NeedleTask(name).draw(Random(seed), vocabularies[split], haystack).questions
                for seed in range(40)
            ]
            assert max(map(len, drawn)) == most
            for questions in drawn:
                asked = [question.evidence for question in questions]
                assert len(set(asked)) == len(asked)


def test_at_least_sixty_wordings_train_and_twenty_others_evaluate():
    training, evaluation = (wordings_of(split).statements for split in SPLITS)
    assert len({w.statement for w in training}) == len(training) >= 60
    assert len({w.statement for w in evaluation}) == len(evaluation) >= 20
    assert {w.style for w in training} >= {
        *("news", "letter", "code", "table", "dialogue", "log", "list", "configuration")
    }


def test_no_evaluation_wording_appears_in_training():
    training, evaluation = (wordings_of(split) for split in SPLITS)
    seen = {run for text in training.texts() for run in word_runs(text, SHARED_WORDS + 1)}
    shared = {
        text: runs
        for text in evaluation.texts()
        if (runs := word_runs(text, SHARED_WORDS + 1) & seen)
    }
    assert shared == {}
    # what is too short for such a run is not said in training at all
    exact = {text.lower() for text in training.texts()}
    assert exact.isdisjoint(text.lower() for text in evaluation.texts())


@pytest.mark.parametrize("split", SPLITS)
def test_a_statement_holds_key_and_value_once_and_a_question_no_value(split):
    for wording in wordings_of(split).statements:
        assert wording.statement.count("{key}") == wording.statement.count("{value}") == 1
        assert all("{key}" in q and "{value}" not in q for q in wording.questions)


def test_free_wordings_hold_key_and_value_once_and_a_question_no_value(haystack, vocabularies):
    rng = Random(0)
    for _ in range(100):
        wording = FreeWordings(vocabularies["train"], haystack).draw(rng)
        assert wording.statement.count("{key}") == wording.statement.count("{value}") == 1
        assert all(q.count("{key}") == 1 and "{value}" not in q for q in wording.questions)


def test_free_lists_and_assignments_hold_what_they_ask_for(haystack, vocabularies):
    rng = Random(0)
    for _ in range(100):
        source = FreeWordings(vocabularies["train"], haystack)
        wording = source.draw(rng)
        assert source.draw_value_list(rng, wording).count("{key}") == 1
        assert source.draw_key_list(rng, wording).count("{keys}") == 1
        form = source.draw_assignment(rng)
        assert form.value.count("{name}") == form.value.count("{value}") == 1
        assert form.copy.count("{name}") == form.copy.count("{other}") == 1
        assert form.question.count("{value}") == 1


def test_free_wordings_are_new_each_time(haystack, vocabularies):
    rng = Random(0)
    drawn = [FreeWordings(vocabularies["train"], haystack).draw(rng) for _ in range(60)]
    assert len({wording.statement for wording in drawn}) == 60
    assert len({question for wording in drawn for question in wording.questions[:2]}) > 110


def test_free_wordings_are_of_words_of_the_text(haystack, vocabularies):
    vocabulary, rng = vocabularies["train"], Random(0)
    text = vocabulary.decode(haystack.read(0, haystack.num_tokens).tolist()).lower()
    for _ in range(20):
        statement = FreeWordings(vocabulary, haystack).draw(rng).statement
        # marks beside key and value are no words
        words = re.split(r"\S*\{\w+\}\S*", statement.lower())
        assert all(word.rstrip(".;!),=|/:->") in text for part in words for word in part.split())


def test_a_text_without_words_still_gives_wordings(vocabularies, tmp_path):
    vocabulary = vocabularies["train"]
    with TokenShardWriter(tmp_path / "shards", load_tokenizer(), "test") as writer:
        writer.append(np.array(vocabulary.encode("7 1 8 " * 200)), 600)
    numbers = Haystack(TokenShards(tmp_path / "shards"))
    assert "{key}" in FreeWordings(vocabulary, numbers).draw(Random(0)).statement


@pytest.mark.parametrize("kind", KINDS)
def test_no_key_or_value_is_in_both_splits(kind):
    drawn = {split: set(Texts(split).draw(Random(0), kind, 5)) for split in SPLITS}
    assert drawn["train"].isdisjoint(drawn["validation"])
    assert {split_of_text(text) for text in drawn["train"]} == {"train"}


def test_keys_that_differ_in_one_part_alone_are_drawn(vocabularies):
    texts = vocabularies["train"].texts
    for seed in range(40):
        keys = texts.draw_keys(Random(seed), "hyphenated", 6)
        assert len(set(keys)) == 6
        first = set(keys[0].split("-"))
        if all(first & set(key.split("-")) for key in keys):
            return
    raise AssertionError("no distractor shares a part with the asked key")


def test_values_of_vocabulary_words_take_one_to_eight_tokens(vocabularies):
    vocabulary, rng = vocabularies["train"], Random(0)
    sizes = {
        len(vocabulary.encode(" " + text)) for text in vocabulary.texts.draw(rng, "tokens", 200)
    }
    assert sizes == set(range(1, 9))


def test_questions_fall_on_every_slot_of_a_chunk(haystack, vocabularies):
    places = {
        draw_sample(
            NeedleTask("worded-single"),
            haystack,
            vocabularies["validation"],
            length=1200,
            seed=0,
            index=index,
        ).context.num_tokens
        % 15
        for index in range(90)
    }
    assert places == set(range(15))


@pytest.mark.parametrize("names", [WORDED, FREE])
def test_training_rows_hold_them_and_mark_their_answers(names, haystack):
    plan = NeedlePlan(mixture=dict.fromkeys(names, 1), exercises_per_row=6, question_break_rate=1.0)
    decode = load_tokenizer().backend_tokenizer.decode
    rows = NeedleRows(haystack.shards, 1200, plan, include_answer_mask=True)
    for number in range(8):
        row = rows[number]
        assert row["input_ids"].shape == (1200,)
        assert row["answer_mask"].any()
        assert row["chunk_breaks"].any()
        assert (row["labels"] == row["input_ids"])[row["answer_mask"].bool()].all()
        ids, mask = row["input_ids"], row["answer_mask"].bool()
        first = int(mask.nonzero()[0])
        length = int((~mask[first:]).nonzero()[0]) if (~mask[first:]).any() else len(ids) - first
        said = decode(ids[first : first + length].tolist()).strip()
        before = decode(ids[:first].tolist())
        assert all(part in before for part in re.split(r", and |, | and ", said))
