"""Tiny corpora for the tests of `gcattn.data`."""

import json
from pathlib import Path

import pytest

from gcattn.data import TokenShards, load_tokenizer, prepare_shards

TEXTS = (
    "The first document has code 48213.\nIt is short.",
    "Ünï 漢字 🙂 and a\r\ntab\there.",
    "One.",
    "A longer document, which goes on and on " * 8,
    "He wrote <|landmark|> and <|endoftext|> in the sand.",
)


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="session")
def texts() -> tuple[str, ...]:
    return TEXTS


@pytest.fixture(scope="session")
def jsonl(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("source") / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def shards(jsonl, tmp_path_factory) -> TokenShards:
    """The texts in several shards: a shard closes after 15 tokens."""
    return prepare_shards(str(jsonl), tmp_path_factory.mktemp("shards") / "out", shard_tokens=15)
