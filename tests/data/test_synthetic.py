"""The synthetic corpus: fixed by its seed, of exact length, and really long-range."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcattn.data import prepare_synthetic_shards, synthetic_documents
from gcattn.data.synthetic_facts import names_of_split

NAME = re.compile(r"ecord of ([A-Z]\w+ [A-Z]\w+):|code of ([A-Z]\w+ [A-Z]\w+) is (\d+)")


def facts(split, seed):
    """All names and codes of thirty documents."""
    found = set()
    for document in synthetic_documents(30, 1024, seed, split):
        for groups in NAME.findall(document.text):
            found |= {group for group in groups if group}
    return found


def test_a_seed_fixes_every_document_whatever_their_number():
    few = list(synthetic_documents(2, 600, seed=5))
    many = list(itertools.islice(synthetic_documents(9, 600, seed=5), 2))
    assert few == many
    assert few[0] != few[1]
    assert few[0] != next(synthetic_documents(1, 600, seed=6))


def test_train_and_validation_share_no_name_and_no_code():
    assert not set(names_of_split("train")) & set(names_of_split("validation"))
    train, validation = facts("train", 0), facts("validation", 0)
    assert len(train) > 40 and len(validation) > 40
    assert not train & validation


@settings(max_examples=20, deadline=None)
@given(document_tokens=st.integers(512, 3000), seed=st.integers(0, 1000))
def test_documents_have_exactly_the_tokens_asked_for(tokenizer, document_tokens, seed):
    document = next(synthetic_documents(1, document_tokens, seed, "train", tokenizer))
    assert len(tokenizer.encode(document.text)) + 1 == document_tokens


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    distance=st.sampled_from([None, (0, 200), (100, 300), (700, 900)]),
)
def test_recalled_spans_repeat_text_from_the_stated_distance(tokenizer, seed, distance):
    document_tokens = 2048
    document = next(
        synthetic_documents(1, document_tokens, seed, "train", tokenizer, recall_distance=distance)
    )
    least, most = distance or (document_tokens // 3, document_tokens)
    starts = np.array(tokenizer(document.text, return_offsets_mapping=True)["offset_mapping"])[:, 0]
    assert document.recall_spans
    for span in document.recall_spans:
        length = span.end - span.start
        assert document.text[span.start : span.end] == document.text[span.source :][:length]
        # the recalled span starts within its paragraph, after a prompt of up to forty tokens
        between = np.searchsorted(starts, span.start) - np.searchsorted(
            starts, span.source + length
        )
        assert least <= between <= most + 40


def test_the_source_of_a_recall_is_the_last_mention_before_it():
    document = next(synthetic_documents(1, 4096, seed=1))
    for span in document.recall_spans:
        body = document.text[span.start : span.end]
        assert document.text.rfind(body, 0, span.start) == span.source


def test_recall_mask_marks_the_tokens_of_the_recalled_spans(tokenizer, tmp_path):
    shards = prepare_synthetic_shards(tmp_path / "out", 3, 900, seed=2, split="validation")
    assert (shards.num_documents, shards.num_tokens) == (3, 2700)
    documents = synthetic_documents(3, 900, 2, "validation", tokenizer)
    for number, document in enumerate(documents):
        start = shards.document_starts[number]
        mask = shards.recall_mask[start : start + 899].astype(bool)
        recalled = "".join(document.text[span.start : span.end] for span in document.recall_spans)
        assert tokenizer.decode(shards.document(number)[mask]) == recalled
        assert 0.05 < mask.mean() < 0.4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1024, 0), "num_documents must be at least 1, got 0"),
        ((1, 511, 0), "document_tokens must be at least 512, got 511"),
        ((1, 1024, 0, "test"), "split must be one of"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        next(synthetic_documents(*arguments))


@pytest.mark.parametrize("distance", [(-1, 500), (300, 499), (785, 999)])
def test_an_impossible_recall_distance_is_refused(distance):
    with pytest.raises(ValueError, match="recall_distance must have"):
        next(synthetic_documents(1, 1024, 0, recall_distance=distance))
