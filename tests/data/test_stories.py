"""Stories: answerable, apart by split in names and words, as long as asked."""

import json
import re
from random import Random

import pytest
from needle_corpus import write_haystack

from gcattn.data import TokenShards, load_tokenizer
from gcattn.data.needle_tasks import Haystack, NeedleTask, NeedleVocabulary, draw_sample
from gcattn.data.needle_tasks.wordings import SHARED_WORDS
from gcattn.data.stories import draw_story
from gcattn.data.stories.relations import RELATIONS
from gcattn.data.stories.story import draw_people, link, scenes, tell
from gcattn.data.stories.story_file import write_stories
from gcattn.data.stories.values import VALUES
from gcattn.data.words.templates import fill, word_runs
from gcattn.data.words.texts import Texts

SPLITS = ("train", "validation")


def count(text):
    return len(text.split()) + 1


def story(split, number, num_tokens=400, num_questions=3):
    rng = Random(f"{split} {number}")
    return draw_story(rng, Texts(split), num_tokens, num_questions, filler=scenes(rng), count=count)


@pytest.mark.parametrize("split", SPLITS)
def test_the_answer_stands_in_the_paragraph_of_the_person_asked_about(split):
    for number in range(8):
        told = story(split, number)
        assert count(told.text) <= 400
        assert len(told.questions) == 3
        for asked in told.questions:
            (relation,) = [r for r in RELATIONS if r.name == asked.relations[0]]
            name = name_in(asked.question, relation.telling(split).questions)
            stated = [paragraph for paragraph in told.text.split("\n") if name in paragraph]
            assert len(stated) == 1
            assert asked.answer in stated[0]


def name_in(question, forms):
    """Return whom a question is about."""
    names = []
    for form in forms:
        before, _, behind = form.partition("{name}")
        if question.startswith(before) and question.endswith(behind):
            names.append(question[len(before) : len(question) - len(behind)])
    # a form that is a part of another one takes words for the name
    return min(names, key=len)


def test_no_name_comes_twice():
    people = draw_people(Random(0), Texts("train"), 200, set())
    names = [person.name for person in people]
    names += [v for p in people for r, v in p.facts.items() if r.value == "person"]
    assert len(set(names)) == len(names)


def test_a_question_over_two_people_names_the_first_alone():
    rng = Random(0)
    one, two = draw_people(rng, Texts("validation"), 2, set())
    linked, asked = link(rng, one, two, "validation")
    assert two.name in tell(rng, linked, "validation")
    assert one.name in asked.question and two.name not in asked.question
    assert asked.answer in two.facts.values()


def test_no_evaluation_sentence_appears_in_training():
    def sentences(split):
        tellings = [relation.telling(split) for relation in RELATIONS]
        return [s for t in tellings for s in (*t.statements, *t.questions, t.of)]

    seen = {run for text in sentences("train") for run in word_runs(text, SHARED_WORDS + 1)}
    shared = {
        text: runs
        for text in sentences("validation")
        if (runs := word_runs(text, SHARED_WORDS + 1) & seen)
    }
    assert shared == {}


@pytest.mark.parametrize("split", SPLITS)
def test_statements_hold_name_and_value_and_questions_the_name_alone(split):
    for relation in RELATIONS:
        telling = relation.telling(split)
        assert all(s.count("{name}") >= 1 == s.count("{value}") for s in telling.statements)
        assert all(q.count("{name}") == 1 and "{value}" not in q for q in telling.questions)
        assert all(q.endswith(("?", ".")) for q in telling.questions)


def test_training_words_each_relation_in_many_ways():
    for relation in RELATIONS:
        statements, questions, of = relation.training
        assert len(statements) >= 20 and len(questions) >= 16
        assert of.count("{name}") == 1 and not of.endswith(".")
        assert all(s.count("{name}") == 1 for s in statements)
        assert all(re.search(r'[.!?]"?$', s) for s in statements)
        for text in (*statements, *questions):
            assert text == " ".join(text.split())
            assert set(re.findall(r"\{.*?\}", text)) <= {"{name}", "{value}"}
    texts = [t for r in RELATIONS for t in (*r.training.statements, *r.training.questions)]
    assert len({fill(text.lower(), name="", value="") for text in texts}) == len(texts)


@pytest.mark.parametrize("split", SPLITS)
def test_the_article_before_a_value_fits_all_of_them(split):
    texts = Texts(split)
    for relation in RELATIONS:
        if any(re.search(r"\ba {value}", s) for s in relation.telling(split).statements):
            drawn = {VALUES[relation.value](Random(seed), texts) for seed in range(200)}
            assert not [value for value in drawn if value[0].lower() in "aeiou"]


def test_names_of_the_splits_are_apart():
    names = {
        split: {p.name for p in draw_people(Random(0), Texts(split), 300, set())}
        for split in SPLITS
    }
    assert names["train"].isdisjoint(names["validation"])


@pytest.mark.parametrize("split", SPLITS)
def test_people_are_needles_too(split, tmp_path):
    haystack = Haystack(TokenShards(write_haystack(tmp_path / "shards", 4_000)))
    vocabulary = NeedleVocabulary(load_tokenizer(), split)
    decode = load_tokenizer().backend_tokenizer.decode
    for index in range(6):
        sample = draw_sample(
            NeedleTask("people"), haystack, vocabulary, length=1200, seed=0, index=index
        )
        stream = sample.context.tokens(0, sample.context.num_tokens).tolist()
        assert len(sample.exercise.needles) == 4
        assert len(sample.questions) == (4 if split == "train" else 1)
        for question in sample.questions:
            (place,) = sample.evidence(question)
            # one token can hold the mark beside a value too
            answer = decode(list(question.answer)).strip()
            assert answer in decode(stream[place.start : place.stop])
            asked = decode(list(question.prompt)).rstrip()
            assert asked.endswith(("?\nAnswer:", ".\nAnswer:"))


def test_questions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="ask fewer or lengthen the story"):
        story("train", 0, num_tokens=60, num_questions=5)


def test_files_are_fixed_by_their_seed_and_hold_the_filler_asked_for(tmp_path):
    filler = tmp_path / "filler.txt"
    filler.write_text("The river rose.\n\nNobody came to the bridge.\n")
    options = {"num_questions": 2, "filler": str(filler)}
    one, two, other = (
        write_stories(tmp_path / f"{name}.jsonl", 3, 300, seed=seed, **options)
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
    tokenizer = load_tokenizer()
    for line in one.read_text().splitlines():
        row = json.loads(line)
        assert len(row["questions"]) == 2
        assert "The river rose." in row["document"]
        assert 150 < len(tokenizer.encode(row["document"])) <= 300
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_stories(one, 3, 300)
