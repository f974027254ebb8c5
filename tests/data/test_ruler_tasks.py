"""RULER: thirteen tasks of the asked length, solvable from the text, fixed by their arguments."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from needle_corpus import write_haystack

from gcattn.data import TokenShards, load_tokenizer
from gcattn.data.needle_tasks import Haystack
from gcattn.data.needle_tasks.interleaved_text import InterleavedText
from gcattn.data.needle_tasks.wordings import wordings_of
from gcattn.data.ruler import (
    RULER_TASKS,
    RulerSource,
    draw_ruler_sample,
    read_hotpotqa,
    read_squad,
)
from gcattn.data.ruler.sample import RepeatedText
from gcattn.data.words.split import split_of_text
from gcattn.data.words.templates import word_runs

LENGTH = 3000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = write_haystack(tmp_path_factory.mktemp("haystack") / "shards", 6_000)
    return RulerSource(load_tokenizer(), Haystack(TokenShards(folder)))


def draw(source, task, **changes):
    return draw_ruler_sample(task, source, **({"length": LENGTH, "seed": 0, "index": 0} | changes))


def text_of(source, sample):
    return source._backend.decode(sample.context.tokens(0, sample.context.num_tokens).tolist())


def question_of(source, sample):
    return source._backend.decode(list(sample.prompt))


def test_there_are_thirteen_tasks():
    assert len(RULER_TASKS) == 13


@pytest.mark.parametrize("task", RULER_TASKS)
def test_a_sample_is_as_long_as_asked_and_holds_its_references(source, task):
    for index in range(3):
        sample = draw(source, task, index=index)
        assert 0.85 * LENGTH < sample.num_tokens <= LENGTH
        text = text_of(source, sample)
        assert all(reference in text for reference in sample.references)
        assert not any(reference in question_of(source, sample) for reference in sample.references)


@pytest.mark.parametrize("task", RULER_TASKS)
def test_arguments_fix_the_sample(source, task):
    def drawn(**changes):
        sample = draw(source, task, **changes)
        return (*sample.context.tokens(0, sample.context.num_tokens).tolist(), *sample.prompt)

    assert drawn() == drawn()
    assert len({drawn(), drawn(index=1), drawn(seed=1)}) == 3


@pytest.mark.parametrize(
    ("task", "num_references", "num_stated"),
    [
        ("niah_single_1", 1, 1),
        ("niah_single_2", 1, 1),
        ("niah_single_3", 1, 1),
        ("niah_multikey_1", 1, 4),
        ("niah_multivalue", 4, 4),
        ("niah_multiquery", 4, 4),
    ],
)
def test_needles_are_stated_once_each_and_asked_by_their_keys(
    source, task, num_references, num_stated
):
    sample = draw(source, task)
    stated = re.findall(
        r"One of the special magic (numbers|uuids) for (\S+) is: (\S+?)\.(?!\d)",
        text_of(source, sample),
    )
    assert len(stated) == num_stated
    asked = re.search(r" for (.+?) mentioned", question_of(source, sample))[1]
    keys = re.split(r", and |, ", asked)
    assert tuple(value for key in keys for _, k, value in stated if k == key) == tuple(
        sorted(sample.references, key=lambda value: [v for _, _, v in stated].index(value))
        if task == "niah_multivalue"
        else sample.references
    )
    assert len(sample.references) == num_references
    assert {split_of_text(key) for key in keys} == {"validation"}


@pytest.mark.parametrize("task", ["niah_multikey_2", "niah_multikey_3"])
def test_a_haystack_of_needles_holds_nothing_but_different_needles(source, task):
    sample = draw(source, task)
    _, *lines = text_of(source, sample).strip().split("\n")
    keys = [
        re.fullmatch(r"One of the .+ for (\S+) is: \S+", line)[1] for line in filter(None, lines)
    ]
    assert len(set(keys)) == len(keys) > 20


def test_a_chain_of_variables_leads_to_every_name(source):
    sample = draw(source, "vt")
    lines = re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", text_of(source, sample))
    value = re.search(r"value (\d+) in the text", question_of(source, sample))[1]
    names = [value]
    for name, said in lines:
        if said == names[-1]:
            names.append(name)
    assert tuple(names[1:]) == sample.references
    assert len(sample.references) == 5


def test_the_ten_common_words_are_the_commonest(source):
    sample = draw(source, "cwe", length=5000)
    text = text_of(source, sample)
    listed = text[text.rindex("Memorize the ones") :]
    counts = Counter(re.findall(r"\d+\. (\w+)", listed))
    assert {word for word, _ in counts.most_common(10)} == set(sample.references)
    assert {counts[word] for word in sample.references} == {30}
    assert set(counts.values()) == {30, 3}


def test_the_three_frequent_words_come_in_the_order_of_their_counts(source):
    sample = draw(source, "fwe")
    counts = Counter(re.findall(r" ([a-z]{6})(?= |$)", text_of(source, sample).split("words.")[1]))
    assert tuple(word for word, _ in counts.most_common(3)) == sample.references
    assert counts.most_common(4)[2][1] > counts.most_common(4)[3][1]


@pytest.mark.parametrize(("task", "documents"), [("qa_1", 1), ("qa_2", 2)])
def test_a_question_is_answered_by_its_documents_alone(source, task, documents):
    sample = draw(source, task)
    assert len(source.pools[task].questions[0].documents) == documents
    numbered = re.findall(r"Document (\d+):", text_of(source, sample))
    assert [int(number) for number in numbered] == list(range(1, len(numbered) + 1))
    assert len(numbered) > 10


def test_tokens_are_those_of_the_text_as_a_whole(source):
    for task in ("niah_single_1", "niah_multikey_2", "vt", "fwe"):
        sample = draw(source, task)
        ids = tuple(sample.context.tokens(0, sample.context.num_tokens).tolist())
        assert source.encode(text_of(source, sample)) == ids


def test_needles_in_text_stand_behind_a_sentence(source):
    sample = draw(source, "niah_multivalue")
    text = text_of(source, sample)
    before = [text[: m.start()].rstrip() for m in re.finditer("One of the special", text)]
    # the haystack has an end of a sentence within reach of most places
    ends = sum(b.endswith((".", "!", "?", '"', "One of the special")) for b in before)
    assert ends >= 3


@pytest.mark.parametrize("task", RULER_TASKS)
def test_a_length_without_room_is_refused(source, task):
    with pytest.raises(ValueError, match=r"needs? a length of"):
        draw(source, task, length=100)


def test_repeated_text_reads_from_any_place():
    text = RepeatedText((5, 6, 7))
    np.testing.assert_array_equal(text.read(2, 5), [7, 5, 6, 7, 5])
    inserted = InterleavedText(text, 0, 6, [(0, (1,)), (3, (2, 2))])
    np.testing.assert_array_equal(
        inserted.tokens(0, inserted.num_tokens), [1, 5, 6, 7, 2, 2, 5, 6, 7]
    )


def test_the_words_of_the_benchmark_are_in_no_training_wording(source):
    seen = {run for text in wordings_of("train").texts() for run in word_runs(text, 4)}
    for task in RULER_TASKS:
        prompt = question_of(source, draw(source, task))
        assert not word_runs(prompt, 4) & seen


def squad(is_impossible=False):
    asked = {"question": "Who came?", "is_impossible": is_impossible}
    answers = {"answers": [] if is_impossible else [{"text": "Ann"}, {"text": "Ann Lee"}]}
    paragraph = {"context": "Ann Lee came first. " * 5, "qas": [asked | answers]}
    return {"data": [{"paragraphs": [paragraph, {"context": "Nobody came. " * 9, "qas": []}]}]}


def test_squad_questions_are_read(source, tmp_path):
    file = tmp_path / "dev.json"
    file.write_text(json.dumps(squad()))
    pool = read_squad(file)
    assert pool.questions[0].answers == ("Ann", "Ann Lee")
    mine = RulerSource(load_tokenizer(), source.haystack, {"qa_1": pool})
    sample = draw(mine, "qa_1", length=600)
    assert sample.needs == "any"
    # documents are too few for the length: they come again
    assert text_of(mine, sample).count("Nobody came") > 9
    file.write_text(json.dumps(squad(is_impossible=True)))
    with pytest.raises(ValueError, match="holds no question"):
        read_squad(file)


def test_hotpotqa_questions_are_read(tmp_path):
    file = tmp_path / "dev.json"
    item = {
        "question": "Which?",
        "answer": "yes",
        "supporting_facts": [["A", 0], ["B", 1]],
        "context": [["A", ["One. ", "Two."]], ["C", ["Three."]], ["B", ["Four."]]],
    }
    file.write_text(json.dumps([item]))
    pool = read_hotpotqa(file)
    assert pool.documents == ("A\nOne. Two.", "C\nThree.", "B\nFour.")
    assert pool.questions[0].documents == (0, 2)


@pytest.mark.parametrize("read", [read_squad, read_hotpotqa])
def test_a_file_of_another_format_is_refused_in_one_line(read, tmp_path):
    file = tmp_path / "other.json"
    file.write_text('{"rows": []}')
    with pytest.raises(ValueError, match=r"is not of .*'s format"):
        read(file)
